//go:build unix

package spool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func identify(info fs.FileInfo) identity {
	id := identity{Size: info.Size(), MTime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.Dev, id.Ino = uint64(st.Dev), st.Ino //nolint:unconvert // a name for a device, of another width on each system
	}
	return id
}

func openDir(parent *os.File, name string) (*os.File, error) {
	return openAt(parent, name, unix.O_DIRECTORY)
}

// open opens for reading without following a link, and without waiting for the
// writer of a FIFO.
func (p place) open() (*os.File, error) { return openAt(p.dir, p.base, unix.O_NONBLOCK) }

func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	fd, path := -1, filepath.Join(dir.Name(), name)
	err := uninterrupted(func() (err error) {
		fd, err = unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0)
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "openat", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// rename moves what is at p, and replaces what is there.
func (p place) rename(to place) error {
	err := uninterrupted(func() error { return unix.Renameat(int(p.dir.Fd()), p.base, int(to.dir.Fd()), to.base) })
	return linkError("renameat", p, to, err)
}

// link gives what is at p another name, and replaces nothing.
func (p place) link(to place) error {
	err := uninterrupted(func() error { return unix.Linkat(int(p.dir.Fd()), p.base, int(to.dir.Fd()), to.base, 0) })
	return linkError("linkat", p, to, err)
}

// same reports whether both are names of one file.
func (p place) same(other place) bool {
	a, err := p.stat()
	if err != nil {
		return false
	}
	b, err := other.stat()
	return err == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

func (p place) exists() bool {
	_, err := p.stat()
	return err == nil
}

// changed is when the inode was changed last: of a claim's file, when it was claimed.
func (p place) changed() time.Time {
	st, err := p.stat()
	if err != nil {
		return time.Time{}
	}
	return time.Unix(st.Ctim.Unix())
}

func (p place) stat() (st unix.Stat_t, err error) {
	err = uninterrupted(func() error { return unix.Fstatat(int(p.dir.Fd()), p.base, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st, err
}

func uninterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func linkError(op string, from, to place, err error) error {
	if err == nil {
		return nil
	}
	return &os.LinkError{Op: op, Old: from.String(), New: to.String(), Err: err}
}

// freeBytes is what an ordinary user may still write below path.
func freeBytes(path string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, os.NewSyscallError("statfs", err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:gosec,unconvert // G115: types differ between systems
}
