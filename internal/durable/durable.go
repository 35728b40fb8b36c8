// Package durable writes files that are either the old content or the new one,
// whole, after any crash: temporary file, fsync, rename, fsync of the directory.
//
// It works on file systems without modes and without hard links too, such as FAT
// and exFAT on a removable disk. There a mode is what the mount says.
package durable

import (
	"errors"
	"fmt"
	"io"
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
	return write(path, content(data), mode, os.Rename)
}

// WriteNew creates path with data, and fails with [fs.ErrExist] if it is there:
// nothing that this call did not make is ever replaced.
func WriteNew(path string, data []byte, mode fs.FileMode) error {
	return write(path, content(data), mode, publishNew)
}

// WriteNewStream is [WriteNew] for content that fill writes. After an error of
// fill there is no file.
func WriteNewStream(path string, mode fs.FileMode, fill func(io.Writer) error) error {
	if _, err := os.Lstat(path); err == nil { // before the work; publishNew decides
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	return write(path, fill, mode, publishNew)
}

func content(data []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}

// publishNew gives a complete file its name. link(2) refuses to replace a file;
// rename(2) would not. Without hard links the name is taken first with an empty
// file (O_EXCL), which the rename then replaces. A crash in between leaves the
// empty file, and the next attempt refuses it.
func publishNew(tmp, path string) error {
	err := os.Link(tmp, path)
	if err == nil {
		return os.Remove(tmp)
	}
	if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, Private)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func write(path string, fill func(io.Writer) error, mode fs.FileMode, publish func(tmp, dst string) error) (err error) {
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
	if err = chmod(f, mode); err != nil {
		return err
	}
	if err = fill(f); err != nil {
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

// chmod sets the mode of a file that this process has made. Nobody but a file
// system without modes refuses that to the owner.
func chmod(f *os.File, mode fs.FileMode) error {
	err := f.Chmod(mode)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
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
