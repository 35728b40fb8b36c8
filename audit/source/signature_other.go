//go:build !linux

package source

import (
	"io/fs"
	"time"
)

// signature changes with the content of a file, and with who may read it, as far as the
// standard library tells.
type signature struct {
	size  int64
	mode  fs.FileMode
	wrote time.Time
}

// signatureOf returns the signature of a file.
func signatureOf(info fs.FileInfo) signature {
	return signature{info.Size(), info.Mode(), info.ModTime()}
}
