package source

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/format"
	"github.com/artstore/artstore-pki/internal/fileperm"
)

const (
	// maxFile bounds one file: a bundle of 20 000 certificates is 18 MB.
	maxFile   = 32 << 20
	usualFile = 64 << 10
)

var (
	errTooLarge = cert.TooLargeError(fmt.Sprintf("it is larger than %d MiB", maxFile>>20))
)

// fileReader reads files of any format.
type fileReader struct {
	*format.Context
	buffers sync.Pool
}

// file is what one file holds.
type file struct {
	path string // as programs name it
	format.Access
	named    bool // on the command line
	parts    []format.Part
	deferred func() *file // reads a large one when it is its turn; until then it has no parts
}

func accessOf(info fs.FileInfo) format.Access {
	uid, known := fileperm.Owner(info)
	return format.Access{Mode: info.Mode().Perm(), OfRoot: known && uid == 0}
}

func failedFile(path string, err error) *file {
	return &file{path: path, parts: []format.Part{{Err: err}}}
}

// read parses a file, or returns nil for one that is none of our business. What
// was named on the command line, or as certificates are, always is.
func (o *fileReader) read(path string, named bool) *file {
	return o.readUpTo(format.LargeFile, path, named)
}

// readEntry is read for a file whose directory says that it is a regular one.
func (o *fileReader) readEntry(path string) *file {
	f := o.load(path, format.Expects(path), format.LargeFile)
	o.follow(f)
	return f
}

func (o *fileReader) readUpTo(limit int64, path string, named bool) *file {
	f := o.readAlone(limit, path, named)
	o.follow(f)
	return f
}

// readAlone reads a file without those that it refers to.
func (o *fileReader) readAlone(limit int64, path string, named bool) *file {
	expected := named || format.Expects(path)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !expected && !mayHoldKey(filepath.Base(path)):
		return nil // a broken link: editors lock files with those
	case err != nil:
		return failedFile(path, withoutPath(err))
	case !info.Mode().IsRegular() && !expected:
		return nil
	case !info.Mode().IsRegular(): // opening a FIFO or a device would wait for somebody, or never end
		return failedFile(path, cert.ErrNotRegular)
	}
	return o.load(path, expected, limit)
}

// load reads what was a regular file a moment ago, or returns nil if neither its
// name nor its beginning promise a certificate or a key. One above the limit is read later.
func (o *fileReader) load(path string, expected bool, limit int64) *file {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // should there be a FIFO by now
	if err != nil {
		return failedFile(path, withoutPath(err))
	}
	defer func() { _ = f.Close() }() // read only
	info, err := f.Stat()
	switch {
	case err != nil:
		return failedFile(path, withoutPath(err))
	case !info.Mode().IsRegular():
		return failedFile(path, cert.ErrNotRegular)
	}
	buf := o.buffer()
	defer o.buffers.Put(buf)
	n, err := f.Read(buf[:])
	switch size := info.Size(); {
	case err != nil && !errors.Is(err, io.EOF):
		return failedFile(path, withoutPath(err))
	case !expected && format.Sniff(buf[:n]) == "" && (n > 0 || strings.ToLower(filepath.Ext(path)) != ".key"): // an empty key is one that was not written
		return nil
	case size > maxFile:
		return failedFile(path, errTooLarge)
	case size > limit:
		return &file{path: path, deferred: func() *file { return o.readUpTo(maxFile, path, expected) }}
	case size == int64(n):
		return &file{path: path, Access: accessOf(info), parts: o.ParseFile(path, buf[:n], expected)}
	}
	whole := bytes.NewBuffer(make([]byte, 0, info.Size()+bytes.MinRead))
	_, _ = whole.Write(buf[:n]) // never fails
	if _, err = whole.ReadFrom(io.LimitReader(f, maxFile+1-int64(n))); err != nil {
		return failedFile(path, withoutPath(err))
	}
	if whole.Len() > maxFile { // it grows while it is read
		return failedFile(path, errTooLarge)
	}
	return &file{path: path, Access: accessOf(info), parts: o.ParseFile(path, whole.Bytes(), expected)}
}

// buffer is what most files fit into.
func (o *fileReader) buffer() *[usualFile]byte {
	if b, ok := o.buffers.Get().(*[usualFile]byte); ok {
		return b
	}
	return new([usualFile]byte)
}

// withoutPath drops the path from an error: its row has it already.
func withoutPath(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// holds counts what is in the file besides keys.
func (f *file) holds() (n int) {
	for _, p := range f.parts {
		if p.Cert != nil || p.DER != nil || p.Document != nil && !p.Document.Unrelated {
			n++
		}
	}
	return n
}

// hasKey reports whether there is a private key in the file, readable or not.
func (f *file) hasKey() bool {
	return slices.ContainsFunc(f.parts, func(p format.Part) bool { return p.IsKey })
}

// err is the first reason why something in the file could not be read.
func (f *file) err() error {
	for _, p := range f.parts {
		if p.Err != nil {
			return p.Err
		}
	}
	return nil
}

// authorities are the CA certificates in the file, and those that issued another one in
// it without being an authority's, as far as names say: no chain goes through these, and
// whoever judges it has to see why. nil if there are none.
func (f *file) authorities() (out []*cert.Certificate) {
	named := map[string]bool{}
	for _, p := range f.parts {
		if len(f.parts) > 1 && p.Cert != nil && !p.Cert.SelfIssued() {
			named[string(p.Cert.RawIssuer)] = true
		}
	}
	for _, p := range f.parts {
		if p.Cert != nil && (p.Cert.IsCA || named[string(p.Cert.RawSubject)]) {
			out = append(out, p.Cert)
		}
	}
	return out
}

// roots are the certificates in a file with the name of a trust bundle, whatever
// their basic constraints say: roots of version 1 have none, and a certificate may be
// trusted by itself. nil if there are none.
func (f *file) roots() (out []*cert.Certificate) {
	for _, p := range f.parts {
		if p.Cert != nil && p.Cert.MayBeTrusted() {
			out = append(out, p.Cert)
		}
	}
	return out
}

// order are all certificates of an entry with one leaf, in a plain file of all of
// it. Those with several are collections, and have none, but for the chain of a
// server, which has the key of the first.
func (o *fileReader) order(f *file, entry string, keys *keyCandidates) (out []*cert.Certificate) {
	leaves := 0
	for _, p := range f.parts {
		if p.In.Suffix() != entry {
			continue
		}
		if p.In != nil && p.In.Loose {
			return nil
		}
		o.Wake(&p) // of those that were put off two at most, unless they are damaged
		if p.Cert == nil || p.Err != nil {
			continue
		}
		if !p.Cert.IsCA && !p.Cert.In(out) {
			if leaves++; leaves > 1 && !keys.whole {
				return nil
			}
		}
		out = append(out, p.Cert)
	}
	if leaves == 0 {
		return nil
	}
	return out
}
