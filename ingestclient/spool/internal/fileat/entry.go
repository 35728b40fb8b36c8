// Package fileat links, renames and opens names in open directories, for which the standard
// library has no calls. It uses paths on systems that have no such calls.
//
// Invariants:
//
//   - No symbolic link is followed (TestNoLinkIsFollowed).
//   - Move and Link replace no file; Rename does (TestMoveReplacesNothing).
//   - An [ID] changes when the content of a file does (TestIDTellsChanges).
package fileat

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Entry is a name in an open directory. Its methods work in that directory, even if other
// users rename it or put a link in its place.
type Entry struct {
	Dir  *os.File
	Base string
}

// Close closes the directory.
func (p Entry) Close() { _ = p.Dir.Close() } // only read from

func (p Entry) String() string { return filepath.Join(p.Dir.Name(), p.Base) }

// At opens the directory of name, below the open directory top. It follows no link.
func At(top *os.File, name string) (Entry, error) {
	if !filepath.IsLocal(name) {
		return Entry{}, fmt.Errorf("%q leads out of %s", name, top.Name())
	}
	p := Entry{Dir: top, Base: filepath.Base(name)}
	for part := range strings.SplitSeq(filepath.Dir(name), string(filepath.Separator)) {
		next, err := openDir(p.Dir, part)
		if p.Dir != top {
			p.Close()
		}
		if err != nil {
			return Entry{}, err
		}
		p.Dir = next
	}
	return p, nil
}

// Move gives the file at p the name to, and replaces nothing. It makes a link; the caller
// removes p. A directory cannot have a second name, and on Linux neither can a file of
// another user that we may not write to (fs.protected_hardlinks). Linux can rename these
// without replacing a file.
func (p Entry) Move(to Entry) error {
	err := p.Link(to)
	if errors.Is(err, fs.ErrPermission) {
		if moved := p.renameNew(to); moved == nil || errors.Is(moved, fs.ErrExist) {
			return moved
		}
	}
	return err
}

// ID identifies the content of a file. Two equal ones mean that the file has not changed in
// between.
type ID struct {
	Dev   uint64 `json:"dev"`
	Ino   uint64 `json:"ino"`
	Size  int64  `json:"size"`  // bytes
	MTime int64  `json:"mtime"` // nanoseconds since 1970
}
