//go:build unix

package fileat

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// IDOf returns the ID of a file: device, inode, size and modification time.
func IDOf(info fs.FileInfo) ID {
	id := ID{Size: info.Size(), MTime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.Dev, id.Ino = uint64(st.Dev), st.Ino //nolint:unconvert // a name for a device, of another width on each system
	}
	return id
}

func openDir(parent *os.File, name string) (*os.File, error) {
	return openAt(parent, name, unix.O_DIRECTORY)
}

// Open opens for reading without following a link, and without waiting for the
// writer of a FIFO.
func (p Entry) Open() (*os.File, error) { return openAt(p.Dir, p.Base, unix.O_NONBLOCK) }

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

// Rename moves what is at p, and replaces what is there.
func (p Entry) Rename(to Entry) error {
	err := uninterrupted(func() error { return unix.Renameat(int(p.Dir.Fd()), p.Base, int(to.Dir.Fd()), to.Base) })
	return linkError("renameat", p, to, err)
}

// Link gives what is at p another name, and replaces nothing.
func (p Entry) Link(to Entry) error {
	err := uninterrupted(func() error { return unix.Linkat(int(p.Dir.Fd()), p.Base, int(to.Dir.Fd()), to.Base, 0) })
	return linkError("linkat", p, to, err)
}

// Same reports whether both are names of one file.
func (p Entry) Same(other Entry) bool {
	a, err := p.stat()
	if err != nil {
		return false
	}
	b, err := other.stat()
	return err == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

// Exists reports whether there is a file of this name, of whatever kind.
func (p Entry) Exists() bool {
	_, err := p.stat()
	return err == nil
}

// Changed returns when the inode was changed last (ctime). For the file of a claim that is
// when it was claimed.
func (p Entry) Changed() time.Time {
	st, err := p.stat()
	if err != nil {
		return time.Time{}
	}
	return time.Unix(st.Ctim.Unix())
}

func (p Entry) stat() (st unix.Stat_t, err error) {
	err = uninterrupted(func() error { return unix.Fstatat(int(p.Dir.Fd()), p.Base, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st, err
}

// uninterrupted repeats a call that a signal has interrupted.
func uninterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func linkError(op string, from, to Entry, err error) error {
	if err == nil {
		return nil
	}
	return &os.LinkError{Op: op, Old: from.String(), New: to.String(), Err: err}
}

// FreeBytes returns how many bytes an ordinary user can still write below path.
func FreeBytes(path string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, os.NewSyscallError("statfs", err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:gosec,unconvert // G115: types differ between systems
}
