package audit

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

const (
	// sniffed is how much of a file decides whether it is worth reading.
	sniffed = 4 << 10
	// maxFile bounds one file: a bundle of 20 000 certificates is 18 MB.
	maxFile = 32 << 20
	// largeFile is from where on a file is not read beside others, so that a
	// directory of bundles takes the memory of one.
	largeFile = 1 << 20
	usualFile = 64 << 10
)

var (
	errNotRegular = errors.New("it is no regular file")
	errTooLarge   = fmt.Errorf("it is larger than %d MiB", maxFile>>20)
)

// certNames are the endings of files that are expected to hold a certificate:
// one that does not is a finding, elsewhere it is a file of something else.
var certNames = []string{".crt", ".cer", ".cert", ".der", ".pem", ".p7b", ".p7c", ".p12", ".pfx"}

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

// buffers are what files are read into.
type buffers struct{ pool sync.Pool }

func (b *buffers) take() *[]byte {
	if buf, ok := b.pool.Get().(*[]byte); ok {
		return buf
	}
	buf := make([]byte, usualFile)
	return &buf
}

// give returns one, unless it had to grow.
func (b *buffers) give(buf *[]byte) {
	if len(*buf) == usualFile {
		b.pool.Put(buf)
	}
}

// expects reports whether files of this name are expected to hold a certificate.
func expects(path string) bool {
	return slices.Contains(certNames, strings.ToLower(filepath.Ext(path)))
}

// readEntry is read for a file whose directory says that it is a regular one.
func (o *opening) readEntry(path string) *file {
	f := o.load(path, expects(path), largeFile)
	o.follow(f)
	return f
}

func (o *opening) readUpTo(limit int64, path string, named bool) *file {
	f := o.readAlone(limit, path, named)
	o.follow(f)
	return f
}

// readAlone reads a file without those that it refers to.
func (o *opening) readAlone(limit int64, path string, named bool) *file {
	expected := named || expects(path)
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return failed(path, plain(err))
	case !info.Mode().IsRegular() && !expected:
		return nil
	case !info.Mode().IsRegular(): // opening a FIFO or a device would wait for somebody, or never end
		return failed(path, errNotRegular)
	}
	return o.load(path, expected, limit)
}

// load reads what was a regular file a moment ago.
func (o *opening) load(path string, expected bool, limit int64) *file {
	f, err := openRaw(path)
	if err != nil {
		return failed(path, err)
	}
	defer f.close()
	size, mode, err := f.stat()
	later := func() *file { return o.readUpTo(maxFile, path, expected) }
	switch {
	case err != nil:
		return failed(path, err)
	case size > maxFile:
		return failed(path, errTooLarge)
	case size > limit:
		return &file{path: path, later: later}
	}
	buf := o.buffers.take()
	defer o.buffers.give(buf)
	data, whole, err := slurp(f, buf, size, expected)
	switch {
	case err != nil:
		return failed(path, err)
	case !whole:
		return nil
	}
	return &file{path: path, mode: mode, parts: parse(data, o)}
}

// slurp reads a file whole into buf, or stops early, if neither its name nor its
// beginning promise a certificate or a key.
func slurp(f raw, buf *[]byte, size int64, expected bool) (data []byte, whole bool, err error) {
	if int64(len(*buf)) <= size {
		*buf = make([]byte, size+1)
	}
	for n := 0; ; {
		if n == len(*buf) { // it grows while it is read
			*buf = slices.Grow(*buf, n)[:2*n]
		}
		got, err := f.read((*buf)[n:])
		if err != nil {
			return nil, false, err
		}
		first := n == 0
		n += got
		switch {
		case n > maxFile:
			return nil, false, errTooLarge
		case first && !expected && sniff((*buf)[:min(n, sniffed)]) == nil:
			return nil, false, nil
		case got == 0 || int64(n) == size:
			return (*buf)[:n], true, nil
		}
	}
}

// plain drops the path from an error: its row has it already.
func plain(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// holds counts what is in the file besides keys.
func (f *file) holds() (n int) {
	for _, p := range f.parts {
		if p.cert != nil || p.der != nil || p.doc != nil {
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

// order are all certificates of an entry with one leaf, in a plain file of all of
// it. Those with several are collections, and have none.
func (o *opening) order(f *file, entry string) (out []*Certificate) {
	leaves := 0
	for _, p := range f.parts {
		if p.in.suffix() != entry {
			continue
		}
		if p.in != nil && p.in.loose {
			return nil
		}
		o.awake(&p) // of those that were put off two at most, unless they are damaged
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

// keys are the readable keys in the file.
func (f *file) keys() (out []crypto.PublicKey) {
	for _, p := range f.parts {
		if p.key != nil {
			out = append(out, p.key)
		}
	}
	return out
}
