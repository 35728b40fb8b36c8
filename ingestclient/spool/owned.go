package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/artstore/artstore-pki/ingestclient/spool/internal/journal"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/fileperm"
)

// openLayout opens the spooled directory and its state, as Dir, StateDir and OnSuccess say.
// With create it makes the directories of the state first. Without create there may be no
// state, and l.state is nil then.
//
// It refuses a state that another user has made or can change: users who may write to the
// spooled directory could otherwise make the spool read, send and remove files to which
// they have no access. In directories that belong to us and are closed to others, no other
// user can put anything.
func openLayout(cfg Config, create bool) (l layout, err error) {
	l = layout{keep: cfg.OnSuccess == KeepSource}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if l.dir, err = filepath.EvalSymlinks(cfg.Dir); err != nil { // WalkDir does not enter a root that is a link
		return l, err
	}
	info, err := os.Stat(l.dir)
	if err != nil {
		return l, err
	}
	if !info.IsDir() {
		return l, fmt.Errorf("%s is not a directory", l.dir)
	}
	if l.sources, err = os.Open(l.dir); err != nil {
		return l, err
	}
	state, err := l.statePath(cfg.StateDir)
	if err != nil {
		return l, err
	}
	if create {
		err = ignoreExists(os.Mkdir(state, durable.Dir))
	} else if _, absent := os.Lstat(state); errors.Is(absent, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		l.state, err = openOwned(state)
	}
	if err != nil {
		return l, err
	}
	if l.claims, err = l.state.Open("."); err != nil {
		return l, err
	}
	if create {
		if err := l.sameFileSystem(); err != nil {
			return l, err
		}
	}
	if err := l.checkState(create); err != nil {
		return l, err
	}
	_, err = l.isRecorded()
	return l, err
}

// checkState checks the owner and the kind of each part of the state. With create it
// makes the directories first.
func (l layout) checkState(create bool) error {
	for _, d := range []string{claimedDir, doneDir, string(quarantineFailed), string(quarantineAmbiguous)} {
		if create {
			if err := ignoreExists(l.state.Mkdir(d, durable.Dir)); err != nil {
				return err
			}
		}
		if err := l.checkDir(d); err != nil && (create || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	for _, f := range []string{lockName, snapshotName, journal.FileName, directoryName} {
		if err := l.checkFile(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// ignoreExists returns nil for an error that says that a directory exists.
func ignoreExists(err error) error {
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// checkUnmoved returns nil while both directories have the paths at which the next
// start looks for them.
func (l layout) checkUnmoved() error {
	for _, d := range []struct {
		path string
		open *os.File
	}{{l.dir, l.sources}, {l.state.Name(), l.claims}} {
		info, err := d.open.Stat()
		if err != nil {
			return err
		}
		there, err := os.Lstat(d.path)
		if err != nil {
			return err
		}
		if !os.SameFile(info, there) {
			return fmt.Errorf("%s is not the directory any more that it was at the start", d.path)
		}
	}
	return nil
}

// removeTemporary removes the files that interrupted writes left.
func (l layout) removeTemporary() error {
	entries, err := l.readDir(".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if ok, err := filepath.Match(".*.tmp*", e.Name()); err != nil || !ok {
			continue
		}
		if err := l.state.Remove(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

func (l layout) Close() error {
	var errs []error
	if l.state != nil {
		errs = append(errs, l.state.Close())
	}
	for _, f := range []*os.File{l.sources, l.claims} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// openOwned opens a directory that only this user can change. It checks the open directory,
// and that the path leads to it.
func openOwned(path string) (*os.Root, error) {
	there, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if err := checkOwnedDir(path, there); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	info, err := root.Stat(".")
	if err == nil && !os.SameFile(info, there) {
		err = fmt.Errorf("%s changed while it was opened", path)
	}
	if err == nil {
		err = checkOwnedDir(path, info)
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return root, nil
}

func (l layout) checkFile(name string) error {
	info, err := l.state.Lstat(name)
	if err != nil {
		return err
	}
	return checkOwnedFile(l.path(name), info)
}

func (l layout) checkDir(name string) error {
	info, err := l.state.Lstat(name)
	if err != nil {
		return err
	}
	return checkOwnedDir(l.path(name), info)
}

// checkOwnedDir returns nil for a directory that only this user can change.
func checkOwnedDir(path string, info fs.FileInfo) error {
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory, and whoever made it could redirect what is kept there; remove it", path)
	}
	return checkOwner(path, info)
}

// checkOwnedFile returns nil for a regular file that only this user can change.
func checkOwnedFile(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file; remove it", path)
	}
	return checkOwner(path, info)
}

// checkOwner returns nil if the file belongs to this user and others cannot write to it.
func checkOwner(path string, info fs.FileInfo) error {
	uid, ok := fileperm.Owner(info)
	if us := os.Geteuid(); !ok || uid != us {
		return fmt.Errorf("%s belongs to user %d, who could change what is kept there, and this is user %d; run as that user, or if nobody should have made it, look at what is in it and remove it", path, uid, us)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("%s has mode %04o: others could change what is kept there; look at what is in it, then chmod go-w", path, mode)
	}
	return nil
}
