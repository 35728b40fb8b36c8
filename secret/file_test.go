package secret_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/artstore/artstore-pki/secret"
)

// The file is read anew each time, so that a replaced secret is used at once.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	read := secret.File(path)
	if _, err := read(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	for content, want := range map[string]string{"one\n": "one", "two": "two"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		var got secret.String
		got, err := read(t.Context())
		if err != nil || got.Expose() != want {
			t.Errorf("read %q, %v; want %q", got.Expose(), err, want)
		}
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := read(t.Context()); !errors.Is(err, secret.ErrEmpty) {
		t.Errorf("empty: %v", err)
	}
}
