package source

import (
	"io/fs"
	"syscall"
)

// signature changes with the content of a file, and with who may read it.
type signature struct {
	device, inode  uint64
	size           int64
	changed, wrote syscall.Timespec // of the inode and of the content
}

// signatureOf returns the signature of a file.
func signatureOf(info fs.FileInfo) signature {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return signature{size: info.Size()}
	}
	return signature{uint64(s.Dev), s.Ino, s.Size, s.Ctim, s.Mtim} //nolint:unconvert // Dev has 32 bits elsewhere
}
