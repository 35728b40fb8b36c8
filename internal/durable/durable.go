// Package durable writes files that are either the old content or the new one,
// whole, after any crash: temporary file, fsync, rename, fsync of the directory.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Modes of what this project keeps on disk.
const (
	Private fs.FileMode = 0o600 // keys, tokens, databases
	Public  fs.FileMode = 0o644 // certificates, configuration without secrets
	Dir     fs.FileMode = 0o700
)

// ErrNotEmpty reports a directory that was expected to be empty or absent.
var ErrNotEmpty = errors.New("directory is not empty")

// WriteFile replaces path with data in one step. The mode holds from the first
// byte on: the content is never readable by others in between.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, os.Rename)
}

// WriteNew creates path with data, and fails with [fs.ErrExist] if it is there:
// nothing that this call did not make is ever replaced.
func WriteNew(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, func(tmp, dst string) error {
		if err := os.Link(tmp, dst); err != nil { // link(2) refuses to replace; rename(2) would not
			return err
		}
		return os.Remove(tmp)
	})
}

func write(path string, data []byte, mode fs.FileMode, publish func(tmp, dst string) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp*")
	if err != nil {
		return err
	}
	tmp := f.Name()
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(tmp) // best effort: the name is ours alone
		}
	}()
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = publish(tmp, path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// MkdirAll creates path and its parents, all new ones with mode 0700.
func MkdirAll(path string) error { return os.MkdirAll(path, Dir) }

// EmptyDir creates path (0700) or accepts it if it is an empty directory;
// anything else there is [ErrNotEmpty].
func EmptyDir(path string) error {
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return MkdirAll(path)
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s: %w", path, ErrNotEmpty)
	}
	return os.Chmod(path, Dir)
}

// SyncDir makes renames and new names in dir survive power loss.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil && !errors.Is(err, fs.ErrInvalid) {
		return err // some file systems refuse fsync on a directory with EINVAL; they need none
	}
	return nil
}
