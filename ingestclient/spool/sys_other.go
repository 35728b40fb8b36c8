//go:build !unix

package spool

import (
	"errors"
	"io/fs"
	"math"
	"os"
)

func identify(info fs.FileInfo) identity {
	return identity{Size: info.Size(), MTime: info.ModTime().UnixNano()}
}

// lockFile refuses: without a lock that ends with the process there is no
// telling a second instance from a crash.
func lockFile(*os.File, bool) (bool, error) {
	return false, errors.New("a spool needs a Unix system")
}

func openRegular(path string) (*os.File, error) { return os.Open(path) }

func ours(fs.FileInfo) bool { return false }

func freeBytes(string) (int64, error) { return math.MaxInt64, nil }
