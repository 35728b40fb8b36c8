//go:build unix

package fileat

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// top is a directory with the files a and b, and a link to another one.
func top(t *testing.T) *os.File {
	t.Helper()
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o700))
	for name, content := range map[string]string{"a": "1", "sub/b": "2"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	must(t, os.Symlink("sub", filepath.Join(dir, "link")))
	must(t, os.Symlink("a", filepath.Join(dir, "soft")))
	must(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	d, err := os.Open(dir)
	must(t, err)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func entry(t *testing.T, d *os.File, name string) Entry {
	t.Helper()
	e, err := At(d, name)
	must(t, err)
	if e.Dir != d {
		t.Cleanup(e.Close)
	}
	return e
}

func TestMoveReplacesNothing(t *testing.T) {
	d := top(t)
	a, b, c := entry(t, d, "a"), entry(t, d, "sub/b"), entry(t, d, "sub/c")
	if err := a.Move(b); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto another file: %v", err)
	}
	if err := a.Move(c); err != nil || !c.Exists() || !a.Same(c) || a.Same(b) || c.Changed().IsZero() {
		t.Errorf("to a new name: %v", err)
	}
	must(t, a.Rename(b)) // replaces
	if a.Exists() || !b.Same(c) {
		t.Error("rename did not replace")
	}
	if err := a.Rename(c); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a name that is gone: %v", err)
	}
	if a.Same(b) || b.Same(a) || !a.Changed().IsZero() {
		t.Error("a name that is gone is the same as a file")
	}
}

func TestNoLinkIsFollowed(t *testing.T) {
	d := top(t)
	for _, name := range []string{"link/b", "a/b", "none/b", "../a", "/a"} {
		if e, err := At(d, name); err == nil {
			t.Errorf("%s: %v", name, e)
		}
	}
	if f, err := entry(t, d, "soft").Open(); err == nil {
		t.Errorf("opened %s", f.Name())
	}
	f, err := entry(t, d, "fifo").Open() // must not wait for a writer
	must(t, err)
	must(t, f.Close())
}

func TestIDTellsChanges(t *testing.T) {
	d := top(t)
	path := filepath.Join(d.Name(), "a")
	look := func() ID {
		info, err := os.Lstat(path)
		must(t, err)
		return IDOf(info)
	}
	was := look()
	if was != look() || was.Ino == 0 || was.Size != 1 {
		t.Errorf("the same file: %+v and %+v", was, look())
	}
	must(t, os.WriteFile(path, []byte("12"), 0o600))
	if was == look() {
		t.Error("another size went unnoticed")
	}
	if free, err := FreeBytes(d.Name()); err != nil || free <= 0 {
		t.Errorf("%d bytes free: %v", free, err)
	}
	if _, err := FreeBytes(path + "/none"); err == nil {
		t.Error("free space of a path that does not exist")
	}
}
