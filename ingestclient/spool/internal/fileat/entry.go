// Package fileat links, renames and opens names in open directories. It follows no link
// and, unless a method says so, replaces no file; the standard library has no calls for
// that. Where the system has none either, it uses paths.
package fileat

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Entry is a name in an open directory. Its methods work in that directory,
// whatever others rename or link meanwhile.
type Entry struct {
	Dir  *os.File
	Base string
}

// Close closes the directory.
func (p Entry) Close() { _ = p.Dir.Close() } // only read from

func (p Entry) String() string { return filepath.Join(p.Dir.Name(), p.Base) }

// At opens the directory of name, below the open directory top. It follows no
// link on the way.
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

// Move gives the file at p the name to, and replaces nothing: by a link, after which
// the caller removes p. A directory cannot have a second name, nor on Linux a file of
// another user that we may not write (fs.protected_hardlinks). These are renamed on
// Linux, which replaces nothing either.
func (p Entry) Move(to Entry) error {
	err := p.Link(to)
	if errors.Is(err, fs.ErrPermission) {
		if moved := p.renameNew(to); moved == nil || errors.Is(moved, fs.ErrExist) {
			return moved
		}
	}
	return err
}

// ID tells whether two looks at a name saw the same content.
type ID struct {
	Dev   uint64 `json:"dev"`
	Ino   uint64 `json:"ino"`
	Size  int64  `json:"size"`  // bytes
	MTime int64  `json:"mtime"` // nanoseconds since 1970
}
