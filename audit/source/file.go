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
	// maxFile bounds one file, in bytes. A bundle of 20 000 certificates has 18 MB.
	maxFile = 32 << 20
	// usualFile is the size of the buffers into which most files fit.
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

// file is one file that was read.
type file struct {
	path string // as programs name it
	format.Access
	named bool // on the command line
	parts []format.Part
	// deferred reads a large file when it is its turn; until then the file has no parts.
	// It is nil for other files.
	deferred func() *file
}

// accessOf returns who may read a file.
func accessOf(info fs.FileInfo) format.Access {
	uid, known := fileperm.Owner(info)
	return format.Access{Mode: info.Mode().Perm(), OfRoot: known && uid == 0}
}

// failedFile returns a file that could not be read.
func failedFile(path string, err error) *file {
	return &file{path: path, parts: []format.Part{{Err: err}}}
}

// read parses a file. It returns nil for a file of another kind, unless the file was named
// on the command line or its name promises a certificate.
func (o *fileReader) read(path string, named bool) *file {
	return o.readUpTo(format.LargeFile, path, named)
}

// readEntry is read for a regular file, as its directory entry says.
func (o *fileReader) readEntry(path string) *file {
	f := o.load(path, format.Expects(path), format.LargeFile)
	o.follow(f)
	return f
}

// readUpTo is read with another limit for files that are deferred.
func (o *fileReader) readUpTo(limit int64, path string, named bool) *file {
	f := o.readAlone(limit, path, named)
	o.follow(f)
	return f
}

// readAlone reads a file without the files that it refers to.
func (o *fileReader) readAlone(limit int64, path string, named bool) *file {
	expected := named || format.Expects(path)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !expected && !mayHoldKey(filepath.Base(path)):
		return nil // a broken link, which editors use as locks
	case err != nil:
		return failedFile(path, withoutPath(err))
	case !info.Mode().IsRegular() && !expected:
		return nil
	case !info.Mode().IsRegular(): // opening a FIFO would block, and reading a device may never end
		return failedFile(path, cert.ErrNotRegular)
	}
	return o.load(path, expected, limit)
}

// load reads a file that was a regular one when it was looked at. It returns nil if neither
// the name nor the beginning promises a certificate or a key. A file above the limit, in
// bytes, is deferred.
func (o *fileReader) load(path string, expected bool, limit int64) *file {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // it may be a FIFO now, which would block
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
	case !expected && format.Sniff(buf[:n]) == "" && (n > 0 || strings.ToLower(filepath.Ext(path)) != ".key"): // an empty key file is reported
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
	if whole.Len() > maxFile { // it has grown since Stat
		return failedFile(path, errTooLarge)
	}
	return &file{path: path, Access: accessOf(info), parts: o.ParseFile(path, whole.Bytes(), expected)}
}

// buffer returns a buffer for the beginning of a file.
func (o *fileReader) buffer() *[usualFile]byte {
	if b, ok := o.buffers.Get().(*[usualFile]byte); ok {
		return b
	}
	return new([usualFile]byte)
}

// withoutPath drops the path from an error, because the row has it already.
func withoutPath(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// holds returns the number of parts that are certificates or documents.
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

// err returns the first error of a part, or nil.
func (f *file) err() error {
	for _, p := range f.parts {
		if p.Err != nil {
			return p.Err
		}
	}
	return nil
}

// authorities returns the CA certificates of the file, and the certificates of leaves that
// are named as the issuer of another certificate in it. No chain leads through the latter,
// but the check of the chain needs them to say so. It returns nil if there are none.
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

// roots returns all certificates of a file with the name of a trust bundle, or nil. Basic
// constraints do not matter: a root of version 1 has none, and a leaf may be trusted
// directly.
func (f *file) roots() (out []*cert.Certificate) {
	for _, p := range f.parts {
		if p.Cert != nil && p.Cert.MayBeTrusted() {
			out = append(out, p.Cert)
		}
	}
	return out
}

// order returns the certificates of an entry in their order, if the entry has one leaf. A
// plain file is one entry. An entry with several leaves is a collection without an order,
// unless it is the chain of a server, whose key fits the first certificate.
func (o *fileReader) order(f *file, entry string, keys *keyCandidates) (out []*cert.Certificate) {
	leaves := 0
	for _, p := range f.parts {
		if p.In.Suffix() != entry {
			continue
		}
		if p.In != nil && p.In.Loose {
			return nil
		}
		o.Wake(&p) // the second leaf ends the loop, so few deferred ones are parsed
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
