package audit

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/internal/pemfile"
)

const (
	// sniffed is how much of a file decides whether it is worth reading.
	sniffed = 4 << 10
	// maxFile bounds one file: a bundle of 20 000 certificates is 18 MB.
	maxFile = 32 << 20
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
}

func failed(path string, err error) *file { return &file{path: path, parts: []parsed{{err: err}}} }

// read parses a file, or returns nil for one that is none of our business. What
// was named on the command line, or as certificates are, always is.
func read(path string, named bool) *file {
	info, err := os.Stat(path)
	if err != nil {
		return failed(path, plain(err))
	}
	expected := named || slices.Contains(certNames, strings.ToLower(filepath.Ext(path)))
	// Opening a FIFO or a device would wait for somebody, or never end.
	if !info.Mode().IsRegular() {
		if expected {
			return failed(path, errNotRegular)
		}
		return nil
	}
	data, err := content(path, expected)
	switch {
	case err != nil:
		return failed(path, plain(err))
	case data == nil:
		return nil
	}
	return &file{path: path, mode: info.Mode(), parts: parse(data)}
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
	if err != nil || !expected && !bytes.Contains(head, beginMarker) {
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
func (f *file) authorities() (out []*x509.Certificate) {
	for _, p := range f.parts {
		if p.cert != nil && p.cert.IsCA {
			out = append(out, p.cert)
		}
	}
	return out
}

// order are all certificates of a file with one leaf. Files with several are
// collections, and have none.
func (f *file) order() (out []*x509.Certificate) {
	leaves := 0
	for _, p := range f.parts {
		if p.cert == nil || p.err != nil {
			continue
		}
		if out = append(out, p.cert); !p.cert.IsCA {
			leaves++
		}
	}
	if leaves != 1 {
		return nil
	}
	return out
}

// keys are the readable keys in the file.
func (f *file) keys() (out []crypto.Signer) {
	for _, p := range f.parts {
		if p.key != nil {
			out = append(out, p.key)
		}
	}
	return out
}

// keyFor finds the key that belongs to a certificate of f: in the same file, or
// in the one of the directory whose name says so. nil if there is none to compare.
func keyFor(f *file, cert *x509.Certificate, among keyFiles) *KeyFile {
	for _, name := range append([]string{filepath.Base(f.path)}, keyNames(f.path)...) {
		if k := among[name]; k != nil {
			fits := func(key crypto.Signer) bool { return pemfile.Fits(cert, key) }
			return &KeyFile{Path: k.path, Mode: k.mode, Fits: slices.ContainsFunc(k.keys(), fits)}
		}
	}
	return nil
}

// keyFiles are the files with keys in a directory, by name.
type keyFiles map[string]*file

func withKeys(files []*file) keyFiles {
	out := keyFiles{}
	for _, f := range files {
		if len(f.keys()) > 0 {
			out[filepath.Base(f.path)] = f
		}
	}
	return out
}

// keyNames are the names under which programs keep the key of a certificate
// file: tls.crt and tls.key, cert.pem and key.pem, fullchain.pem and
// privkey.pem, a-cert.pem and a-key.pem, a.pem and a-key.pem.
func keyNames(path string) []string {
	base := filepath.Base(path)
	ext := filepath.Ext(base)
	name := strings.TrimSuffix(base, ext)
	out := []string{name + ".key", name + "-key" + ext}
	for _, pair := range [][2]string{{"cert", "key"}, {"fullchain", "privkey"}, {"chain", "privkey"}} {
		if replaced := strings.Replace(name, pair[0], pair[1], 1); replaced != name {
			out = append(out, replaced+ext, replaced+".key")
		}
	}
	return out
}

// siblings are the files that may hold the key of one that was named alone.
func siblings(path string) (out []*file) {
	for _, name := range keyNames(path) {
		if k := read(filepath.Join(filepath.Dir(path), name), false); k != nil && k.err() == nil {
			out = append(out, k)
		}
	}
	return out
}
