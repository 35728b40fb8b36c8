package spool

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/artstore/artstore-pki/ingestclient/spool/internal/fileat"
	"github.com/artstore/artstore-pki/internal/durable"
)

const directoryName = "directory.json"

// directoryRecord is the content of directory.json: the spooled directory to which this
// state belongs. Moving that directory changes its path; restoring it from a copy
// changes the other two.
type directoryRecord struct {
	Path string `json:"path"`
	Dev  uint64 `json:"dev"`
	Ino  uint64 `json:"ino"`
}

func (h directoryRecord) is(other directoryRecord) bool {
	return h.Path == other.Path || h.Ino != 0 && h.Ino == other.Ino && h.Dev == other.Dev
}

// statePath returns the path of the state. A parent may be a link; the state itself may not.
func (l layout) statePath(given string) (string, error) {
	usual := filepath.Join(l.dir, StateDir)
	if given == "" {
		return usual, nil
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(filepath.Clean(given)))
	if err != nil {
		return "", fmt.Errorf("the state directory: %w", err)
	}
	state := filepath.Join(parent, filepath.Base(given))
	for _, pair := range [][2]string{{l.dir, state}, {state, l.dir}} {
		in, err := within(pair[0], pair[1])
		if err != nil {
			return "", err
		}
		if in && state != usual {
			return "", fmt.Errorf("the state directory %s and the spooled directory %s are within each other: files of the state would be sent", state, l.dir)
		}
	}
	return state, nil
}

// within reports whether path is dir or below it.
func within(dir, path string) (bool, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return false, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return false, err
	}
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel), nil
}

// sameFileSystem returns nil if a file can be renamed from one directory into the other. It
// tries a name that does not exist: the kernel checks the file system, and whether it is
// mounted twice, before it looks for the name.
func (l layout) sameFileSystem() error {
	absent := StateDir + "-" + rand.Text()
	err := fileat.Entry{Dir: l.sources, Base: absent}.Rename(fileat.Entry{Dir: l.claims, Base: absent})
	if errors.Is(err, syscall.EXDEV) {
		return fmt.Errorf("%s is on another file system or mount than %s, and a claim is one rename: %w", l.state.Name(), l.dir, syscall.EXDEV)
	}
	return nil
}

// isRecorded reports whether directory.json is up to date. The state of another
// directory is an error: its claims would be returned to the wrong one.
func (l layout) isRecorded() (bool, error) {
	now, err := l.currentDirectory()
	if err != nil {
		return false, err
	}
	raw, err := l.readOwn(directoryName)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	var was directoryRecord
	if err == nil {
		err = json.Unmarshal(raw, &was)
	}
	switch {
	case err != nil:
		return false, fmt.Errorf("reading %s: %w", l.path(directoryName), err)
	case !was.is(now) && filepath.Dir(l.state.Name()) != l.dir:
		return false, fmt.Errorf("%s is the state of %s, and each directory needs its own; if that one was moved here, remove %s", l.state.Name(), was.Path, l.path(directoryName))
	}
	return was == now, nil
}

// recordDirectory writes directory.json. The caller holds the lock of the spool.
func (l layout) recordDirectory() error {
	if known, err := l.isRecorded(); err != nil || known {
		return err
	}
	now, err := l.currentDirectory()
	if err != nil {
		return err
	}
	raw, err := json.Marshal(now)
	if err != nil {
		return err
	}
	return durable.WriteFileIn(l.state, directoryName, append(raw, '\n'), durable.Private)
}

// currentDirectory returns the record of the spooled directory as it is now.
func (l layout) currentDirectory() (directoryRecord, error) {
	info, err := l.sources.Stat()
	if err != nil {
		return directoryRecord{}, err
	}
	path, err := filepath.Abs(l.dir)
	id := fileat.IDOf(info)
	return directoryRecord{Path: strings.ToValidUTF8(path, "\uFFFD"), Dev: id.Dev, Ino: id.Ino}, err
}
