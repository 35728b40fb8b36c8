package fileaccess_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/artstore/artstore-pki/rotation/internal/fileaccess"
)

// TestPlace: a place is the same over a restart, and a copy of a directory is another place.
func TestPlace(t *testing.T) {
	place := func(dir string) string {
		f, err := os.Open(filepath.Join(dir, "lock"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		return fileaccess.Place(f)
	}
	dir, copied := t.TempDir(), filepath.Join(t.TempDir(), "copied")
	if err := os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if a, b := place(dir), place(dir); a != b || len(a) != 32 {
		t.Errorf("one file is at %q and %q", a, b)
	}
	if a, b := place(dir), place(copied); a == b {
		t.Errorf("a file and its copy are both at %q", a)
	}
}
