package statedir_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/internal/durable"
)

func TestDatabase(t *testing.T) {
	dir := t.TempDir()
	elsewhere := filepath.Join(t.TempDir(), "record.db")
	for setting, want := range map[string]string{
		"":                        filepath.Join(dir, "pki.db"),
		"data/record.db":          filepath.Join(dir, "data", "record.db"),
		elsewhere:                 elsewhere,
		"postgres://pki@host/pki": "postgres://pki@host/pki",
	} {
		if got := statedir.Database(dir, setting); got != want {
			t.Errorf("%q is at %s, want %s", setting, got, want)
		}
	}
}

func TestEncrypted(t *testing.T) {
	const sealed = "-----BEGIN ENCRYPTED " + "PRIVATE KEY-----\n"
	for _, tc := range []struct {
		name, content string
		want          bool
	}{
		{"a.key", sealed, true},
		{"b.key", "-----BEGIN " + "PRIVATE KEY-----\n", false},
		{"c.key", "eyJhbGciOiJQ", false}, // the form of another file
		{"d.jwe", "eyJhbGciOiJQ", true},
		{"e.jwe", `{"kty":"EC"}`, false},
		{"password", "", false},
	} {
		path := filepath.Join(t.TempDir(), tc.name)
		if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := statedir.Encrypted(path); err != nil || got != tc.want {
			t.Errorf("%s: %v, %v", tc.name, got, err)
		}
	}
	if _, err := statedir.Encrypted(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// What was absent is absent again, what was empty is empty, and what was neither
// is not touched.
func TestMake(t *testing.T) {
	parent := t.TempDir()
	for name, before := range map[string][]string{"absent": nil, "empty": {"there"}} {
		dir := filepath.Join(parent, "there")
		if before != nil {
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		undo, err := statedir.Make(dir)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := os.MkdirAll(statedir.Path(dir, "certs/more"), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := statedir.Make(dir); !errors.Is(err, durable.ErrNotEmpty) {
			t.Errorf("%s, made twice: %v", name, err)
		}
		if err := undo(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := names(t, parent); !slices.Equal(got, before) {
			t.Errorf("%s: %q is left, want %q", name, got, before)
		}
		if before != nil {
			if got := names(t, dir); len(got) > 0 {
				t.Errorf("%s: it holds %q", name, got)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}
