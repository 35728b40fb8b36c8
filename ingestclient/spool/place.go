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

// sourceAt is the place of a source. Where a directory on the way is none any
// more, the file is gone with it.
func (l layout) sourceAt(name string) (place, error) {
	p, err := at(l.sources, name)
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		err = fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return p, err
}

// between does one step with both names of a file: its source and the one in its claim.
func (l layout) between(id, name string, step func(source, claim place) error) error {
	source, err := l.sourceAt(name)
	if err != nil {
		return err
	}
	defer source.close()
	claim, err := at(l.claims, contentPath(id, name))
	if err != nil {
		return err
	}
	defer claim.close()
	return step(source, claim)
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
	source, err := l.sourceAt(name)
	if err != nil {
		return false
	}
	defer source.close()
	p, err := at(l.claims, inState)
	if err != nil {
		return false
	}
	defer p.close()
	return p.same(source)
}

// inBoth reports whether the file of a claim is at the place of its source too.
func (l layout) inBoth(id, name string) bool {
	both := false
	err := l.between(id, name, func(source, claim place) error {
		both = claim.same(source)
		return nil
	})
	return err == nil && both
}
