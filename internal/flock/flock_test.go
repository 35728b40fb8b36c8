package flock_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/artstore/artstore-pki/internal/flock"
)

func TestTry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	try := func(f *os.File, shared, want bool) {
		t.Helper()
		if busy, err := flock.Try(f, shared); busy != want || err != nil {
			t.Errorf("busy %v, %v; want %v", busy, err, want)
		}
	}
	a, b := open(), open()
	try(a, true, false)
	try(b, true, false) // shared with the other
	try(b, false, true)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	try(b, false, false)
	try(open(), true, true)
}
