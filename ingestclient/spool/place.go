package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// place is a name in an open directory: whatever others rename or link
// meanwhile, what is done with it is done in that directory.
type place struct {
	dir  *os.File
	base string
}

func (p place) close() { _ = p.dir.Close() } // only read from

func (p place) String() string { return filepath.Join(p.dir.Name(), p.base) }

// at opens the directory that name is in, below an open one. No link on the way
// is followed.
func at(top *os.File, name string) (place, error) {
	if !filepath.IsLocal(name) {
		return place{}, fmt.Errorf("%q leads out of %s", name, top.Name())
	}
	p := place{dir: top, base: filepath.Base(name)}
	for part := range strings.SplitSeq(filepath.Dir(name), string(filepath.Separator)) {
		next, err := openDir(p.dir, part)
		if p.dir != top {
			p.close()
		}
		if err != nil {
			return place{}, err
		}
		p.dir = next
	}
	return p, nil
}

// move gives what is at p another name instead of its own, or besides it until
// the caller removes that: a link, which replaces nothing. There is no second name
// for a directory, nor on Linux for a file of somebody else that we may not write
// (protected_hardlinks). Those are renamed on Linux, and nothing is replaced either.
func (p place) move(to place) error {
	err := p.link(to)
	if errors.Is(err, fs.ErrPermission) {
		if moved := p.renameNew(to); moved == nil || errors.Is(moved, fs.ErrExist) {
			return moved
		}
	}
	return err
}

// sourceAt is the place of a source. Where a directory on the way is none any
// more, the file is gone with it.
func (l layout) sourceAt(name string) (place, error) {
	p, err := at(l.sources, name)
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		err = fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return p, err
}

// between does one step with a source and a file of the state.
func (l layout) between(source, inState string, step func(source, own place) error) error {
	from, err := l.sourceAt(source)
	if err != nil {
		return err
	}
	defer from.close()
	own, err := at(l.claims, inState)
	if err != nil {
		return err
	}
	defer own.close()
	return step(from, own)
}

// openFile opens a file of the state for reading, without following a link and
// without waiting for the writer of a FIFO.
func (l layout) openFile(name string) (*os.File, error) {
	p, err := at(l.claims, name)
	if err != nil {
		return nil, err
	}
	defer p.close()
	return p.open()
}

// exists reports whether there is a source of that name.
func (l layout) exists(name string) bool {
	p, err := l.sourceAt(name)
	if err != nil {
		return false
	}
	defer p.close()
	return p.exists()
}

// isSource reports whether a file of the state is the source of that name.
func (l layout) isSource(name, inState string) bool {
	is := false
	err := l.between(name, inState, func(source, own place) error {
		is = own.same(source)
		return nil
	})
	return err == nil && is
}
