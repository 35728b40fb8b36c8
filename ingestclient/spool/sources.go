package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/artstore/artstore-pki/ingestclient/spool/internal/fileat"
)

// sourceAt opens the directory of a source. If a part of the path is no directory any
// more, the error is fs.ErrNotExist.
func (l layout) sourceAt(name string) (fileat.Entry, error) {
	p, err := fileat.At(l.sources, name)
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		err = fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return p, err
}

// between does one step with a source and a file of the state.
func (l layout) between(source, inState string, step func(source, own fileat.Entry) error) error {
	from, err := l.sourceAt(source)
	if err != nil {
		return err
	}
	defer from.Close()
	own, err := fileat.At(l.claims, inState)
	if err != nil {
		return err
	}
	defer own.Close()
	return step(from, own)
}

// openFile opens a file of the state for reading, without following a link and
// without waiting for the writer of a FIFO.
func (l layout) openFile(name string) (*os.File, error) {
	p, err := fileat.At(l.claims, name)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return p.Open()
}

// exists reports whether there is a source of that name.
func (l layout) exists(name string) bool {
	p, err := l.sourceAt(name)
	if err != nil {
		return false
	}
	defer p.Close()
	return p.Exists()
}

// isSource reports whether a file of the state is the source of that name.
func (l layout) isSource(name, inState string) bool {
	is := false
	err := l.between(name, inState, func(source, own fileat.Entry) error {
		is = own.Same(source)
		return nil
	})
	return err == nil && is
}
