//go:build !unix

package audit

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// raw is a file as package os has it: what is past that is another thing on each system.
type raw struct{ file *os.File }

func openRaw(path string) (raw, error) {
	f, err := os.Open(path)
	return raw{f}, plain(err)
}

func (f raw) close() { _ = f.file.Close() } // read only

// stat is the size in bytes and the permissions; errNotRegular for a pipe or a device.
func (f raw) stat() (size int64, mode fs.FileMode, err error) {
	info, err := f.file.Stat()
	if err != nil {
		return 0, 0, plain(err)
	}
	if !info.Mode().IsRegular() {
		return 0, 0, errNotRegular
	}
	return info.Size(), info.Mode().Perm(), nil
}

// read returns 0 at the end.
func (f raw) read(buf []byte) (int, error) {
	n, err := f.file.Read(buf)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, plain(err)
}
