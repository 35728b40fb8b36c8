//go:build unix

package audit

import (
	"errors"
	"io/fs"
	"syscall"
)

// raw is a file past package os, whose files cost as much again as reading them.
type raw int

// openRaw does not wait, should there be a FIFO by now.
func openRaw(path string) (f raw, err error) {
	err = retry(func() error {
		fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
		f = raw(fd)
		return err
	})
	return f, err
}

func (f raw) close() { _ = syscall.Close(int(f)) } // read only

// stat is the size in bytes and the permissions; errNotRegular for a FIFO or a device.
func (f raw) stat() (size int64, mode fs.FileMode, err error) {
	var info syscall.Stat_t
	if err := retry(func() error { return syscall.Fstat(int(f), &info) }); err != nil {
		return 0, 0, err
	}
	if info.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return 0, 0, errNotRegular
	}
	return info.Size, fs.FileMode(info.Mode & 0o777), nil
}

// read returns 0 at the end.
func (f raw) read(buf []byte) (n int, err error) {
	err = retry(func() error {
		n, err = syscall.Read(int(f), buf)
		return err
	})
	return max(n, 0), err
}

// retry calls again what a signal interrupted, as package os does.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
