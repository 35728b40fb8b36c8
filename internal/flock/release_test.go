//go:build unix

package flock_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/artstore/artstore-pki/internal/flock"
)

// A program that is being started has a copy of each descriptor for a moment. The lock is free all the same.
func TestCloseReleasesBesideACopy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	held := open()
	if busy, err := flock.Try(held, false); busy || err != nil {
		t.Fatal(busy, err)
	}
	inherited, err := syscall.Dup(int(held.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Close(inherited) }()
	if err := flock.Close(held); err != nil {
		t.Fatal(err)
	}
	next := open()
	if busy, err := flock.Try(next, false); busy || err != nil {
		t.Errorf("busy %v, %v", busy, err)
	}
	if err := flock.Close(next); err != nil {
		t.Error(err)
	}
}
