package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// sniffed is how much of a file decides whether it is worth reading.
	sniffed = 4 << 10
	// maxFile bounds one file: a bundle of 20 000 certificates is 18 MB.
	maxFile = 32 << 20
	// largeFile is from where on a file is not read beside others, so that a
	// directory of bundles takes the memory of one.
	largeFile = 1 << 20
)

var (
	errNotRegular = errors.New("it is no regular file")
	errTooLarge   = fmt.Errorf("it is larger than %d MiB", maxFile>>20)
)

// certNames are the endings of files that are expected to hold a certificate:
// one that does not is a finding, elsewhere it is a file of something else.
var certNames = []string{".crt", ".cer", ".cert", ".der", ".pem"}

// file is what one file holds.
type file struct {
	path  string // as programs name it
	mode  fs.FileMode
	parts []parsed
	later func() *file // reads a large one when it is its turn; until then it has no parts
}

func failed(path string, err error) *file { return &file{path: path, parts: []parsed{{err: err}}} }

// read parses a file, or returns nil for one that is none of our business. What
// was named on the command line, or as certificates are, always is.
func (o *opening) read(path string, named bool) *file {
	return o.readUpTo(largeFile, path, named)
}

func (o *opening) readUpTo(size int64, path string, named bool) *file {
	info, err := os.Stat(path)
	if err != nil {
		return failed(path, plain(err))
	}
	expected := named || slices.Contains(certNames, strings.ToLower(filepath.Ext(path)))
	switch {
	case !info.Mode().IsRegular() && !expected:
		return nil
	case !info.Mode().IsRegular(): // opening a FIFO or a device would wait for somebody, or never end
		return failed(path, errNotRegular)
	case info.Size() > size && size < maxFile:
		return &file{path: path, later: func() *file { return o.readUpTo(maxFile, path, named) }}
	}
	data, err := content(path, expected)
	switch {
	case err != nil:
		return failed(path, plain(err))
	case data == nil:
		return nil
	}
	return &file{path: path, mode: info.Mode(), parts: parse(data, o)}
}

// plain drops the path from an error: its row has it already.
func plain(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// content reads a file whole, or returns nil if neither its name nor its
// beginning promise a certificate or a key.
func content(path string, expected bool) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	head := make([]byte, sniffed)
	n, err := io.ReadFull(f, head)
	head = head[:n]
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // the whole file is shorter
	}
	if err != nil || !expected && sniff(head) == nil {
		return nil, err
	}
	rest, err := io.ReadAll(io.LimitReader(f, maxFile+1-int64(n)))
	if err == nil && len(head)+len(rest) > maxFile {
		err = errTooLarge
	}
	return append(head, rest...), err
}

func (f *file) certs() (n int) {
	for _, p := range f.parts {
		if p.cert != nil {
			n++
		}
	}
	return n
}

// err is the first reason why something in the file could not be read.
func (f *file) err() error {
	for _, p := range f.parts {
		if p.err != nil {
			return p.err
		}
	}
	return nil
}

// authorities are the CA certificates in the file; nil if there are none.
func (f *file) authorities() (out []*Certificate) {
	for _, p := range f.parts {
		if p.cert != nil && p.cert.isCA {
			out = append(out, p.cert)
		}
	}
	return out
}

// order are all certificates of a file with one leaf. Files with several are
// collections, and have none.
func (f *file) order() (out []*Certificate) {
	leaves := 0
	for _, p := range f.parts {
		if p.cert == nil || p.err != nil {
			continue
		}
		if !p.cert.isCA {
			if leaves++; leaves > 1 {
				return nil
			}
		}
		out = append(out, p.cert)
	}
	if leaves != 1 {
		return nil
	}
	return out
}

// hasKey reports whether there is a readable key in the file.
func (f *file) hasKey() bool {
	return slices.ContainsFunc(f.parts, func(p parsed) bool { return p.key != nil })
}
