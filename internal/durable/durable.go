// Package durable writes files that are either the old content or the new one,
// whole, after any crash: temporary file, fsync, rename, fsync of the directory.
//
// It works on file systems without modes and without hard links too, such as FAT
// and exFAT on a removable disk. There a mode is what the mount says.
package durable

import (
	"crypto/rand"
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

// WriteFileIn is [WriteFile] for a name below root.
func WriteFileIn(root *os.Root, name string, data []byte, mode fs.FileMode) error {
	dir, base := filepath.Split(name)
	tmp := filepath.Join(dir, "."+base+".tmp"+rand.Text())
	f, err := root.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, Private)
	if err != nil {
		return err
	}
	if err = complete(f, content(data), mode); err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		_ = root.Remove(tmp) // best effort: the name is ours alone
		return err
	}
	return SyncDirIn(root, filepath.Dir(name))
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

func write(path string, fill func(io.Writer) error, mode fs.FileMode, publish func(tmp, dst string) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp*")
	if err != nil {
		return err
	}
	if err = complete(f, fill, mode); err == nil {
		err = publish(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // best effort: the name is ours alone
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// complete fills a new file, makes it durable and closes it, whatever happens.
func complete(f *os.File, fill func(io.Writer) error, mode fs.FileMode) error {
	err := chmod(f, mode)
	if err == nil {
		err = fill(f)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// chmod sets the mode of a file that this process has made. Only a file system without modes
// refuses that to the owner, and such a refusal is no error.
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
func SyncDir(dir string) error { return syncOpened(os.Open(dir)) }

// SyncDirIn is [SyncDir] for a directory below root.
func SyncDirIn(root *os.Root, dir string) error { return syncOpened(root.Open(dir)) }

func syncOpened(d *os.File, err error) error {
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return SyncOpenDir(d)
}

// SyncOpenDir is [SyncDir] for a directory that is open.
func SyncOpenDir(d *os.File) error {
	if err := d.Sync(); err != nil && !errors.Is(err, fs.ErrInvalid) {
		return err // some file systems refuse fsync on a directory with EINVAL; they need none
	}
	return nil
}
