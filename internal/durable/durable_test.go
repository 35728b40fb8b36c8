package durable_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/artstore/artstore-pki/internal/durable"
)

func TestWriteFileReplacesWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, content := range []string{"one", "two, longer", ""} {
		if err := durable.WriteFile(path, []byte(content), durable.Private); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Errorf("got %q, %v; want %q", got, err, content)
		}
	}
	onlyFile(t, path, durable.Private)
}

func TestWriteNewNeverReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := durable.WriteNew(path, []byte("mine"), durable.Public); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteNew(path, []byte("other"), durable.Public); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("second write: %v, want fs.ErrExist", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "mine" {
		t.Errorf("content is now %q", got)
	}
	onlyFile(t, path, durable.Public)
}

func TestWriteFailsCleanly(t *testing.T) {
	dir := t.TempDir()
	if err := durable.WriteFile(filepath.Join(dir, "absent", "f"), nil, durable.Private); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent directory: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(filepath.Join(dir, "d"), []byte("x"), durable.Private); err == nil {
		t.Error("a directory was replaced by a file")
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestEmptyDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for range 2 { // absent, then empty
		if err := durable.EmptyDir(dir); err != nil {
			t.Fatal(err)
		}
	}
	if fi, _ := os.Stat(dir); fi.Mode().Perm() != durable.Dir {
		t.Errorf("mode %o", fi.Mode().Perm())
	}
	if err := durable.WriteFile(filepath.Join(dir, "f"), nil, durable.Private); err != nil {
		t.Fatal(err)
	}
	if err := durable.EmptyDir(dir); !errors.Is(err, durable.ErrNotEmpty) {
		t.Errorf("full directory: %v", err)
	}
	if err := durable.EmptyDir(filepath.Join(dir, "f")); err == nil {
		t.Error("a file was accepted as a directory")
	}
}

// onlyFile checks that path is alone in its directory (no temporary file left) and has the mode.
func onlyFile(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("entries %v, %v; want one", entries, err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != mode {
		t.Errorf("mode %v, %v; want %o", fi.Mode().Perm(), err, mode)
	}
}

func TestWriteNewStreamIsWholeOrNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	broken := errors.New("broken")
	err := durable.WriteNewStream(path, durable.Private, func(w io.Writer) error {
		_, _ = io.WriteString(w, "half")
		return broken
	})
	if entries, _ := os.ReadDir(filepath.Dir(path)); !errors.Is(err, broken) || len(entries) != 0 {
		t.Errorf("%v, left behind: %v", err, entries)
	}
	if err := durable.WriteNewStream(path, durable.Private, func(w io.Writer) error {
		_, err := io.WriteString(w, "whole")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	onlyFile(t, path, durable.Private)
	untouched := func(io.Writer) error { t.Error("work for a file that is there already"); return nil }
	if err := durable.WriteNewStream(path, durable.Private, untouched); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second stream: %v, want fs.ErrExist", err)
	}
}
