//go:build !unix

package fileaccess

import (
	"io/fs"
	"os"
)

// These systems have no owners and modes that a renewal could keep.

// OpenLock opens the lock file at path, and makes it if it is absent.
func OpenLock(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}

// CanWrite returns true.
func CanWrite(string) bool { return true }

// Keep does nothing.
func Keep(*os.Root, string, string, fs.FileMode) (lost bool, err error) { return false, nil }
