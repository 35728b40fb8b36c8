package rotation

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/artstore/artstore-pki/internal/pemfile"
)

const (
	maxLinks = 40      // as the kernel's limit
	maxFile  = 1 << 20 // bytes; a bundle of 400 roots is a third of it
)

// reading is the content of one set of files.
type reading struct {
	cert, key, ca []byte
	digest        [sha256.Size]byte
	version       string // the directory the certificate really came from
}

// filePaths are the real paths of a set, all through one resolution.
type filePaths struct{ cert, key, ca string }

func load(p filePaths) (*reading, error) {
	r := &reading{version: filepath.Base(filepath.Dir(p.cert))}
	h := sha256.New()
	for _, f := range []struct {
		path string
		into *[]byte
	}{{p.cert, &r.cert}, {p.key, &r.key}, {p.ca, &r.ca}} {
		if f.path != "" {
			b, err := readFile(f.path)
			if err != nil {
				return nil, err
			}
			*f.into = b
		}
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(*f.into)))
		_, _ = h.Write(size[:]) // a hash does not fail
		_, _ = h.Write(*f.into)
	}
	h.Sum(r.digest[:0])
	return r, nil
}

// readFile reads a regular file; a pipe would block for ever.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only: nothing to lose
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("longer than %d bytes", maxFile)}
	}
	return b, nil
}

// material parses strictly and checks that the pair fits: between the two
// writes of a careless writer it does not, and nobody needs to hear of that.
// Errors name paths, never contents.
func (r *reading) material(set FileSet) (Material, error) {
	chain, key, err := r.pair(set)
	if err != nil {
		return Material{}, err
	}
	roots, err := pemfile.Certificates(r.ca)
	if err != nil {
		return Material{}, fmt.Errorf("reading trust bundle %s: %w", set.CA, err)
	}
	if !pemfile.Fits(chain[0], key) {
		return Material{}, fmt.Errorf("reading private key %s: it does not fit the first certificate of %s", keyPath(set), set.Cert)
	}
	m := Material{Certificate: tls.Certificate{PrivateKey: key, Leaf: chain[0]}, Roots: roots, Version: r.version}
	for _, c := range chain {
		m.Certificate.Certificate = append(m.Certificate.Certificate, c.Raw)
	}
	return m, nil
}

func (r *reading) pair(set FileSet) ([]*x509.Certificate, crypto.Signer, error) {
	if set.Key == "" || set.Key == set.Cert {
		chain, key, err := pemfile.Combined(r.cert)
		if err != nil {
			return nil, nil, fmt.Errorf("reading certificate and key %s: %w", set.Cert, err)
		}
		return chain, key, nil
	}
	chain, err := pemfile.Certificates(r.cert)
	if err != nil {
		return nil, nil, fmt.Errorf("reading certificate %s: %w", set.Cert, err)
	}
	key, err := pemfile.PrivateKey(r.key)
	if err != nil {
		return nil, nil, fmt.Errorf("reading private key %s: %w", set.Key, err)
	}
	return chain, key, nil
}

func keyPath(set FileSet) string {
	if set.Key == "" {
		return set.Cert
	}
	return set.Key
}

// resolver follows symbolic links, each directory once: files that reach their
// content through the same link get the same target, also while it is swapped.
type resolver struct {
	real map[string]string
	dirs []string // on the way, see watched
}

func newResolver() *resolver { return &resolver{real: map[string]string{}} }

func (r *resolver) all(set FileSet) (p filePaths, err error) {
	var missing error
	for _, f := range []struct {
		path string
		into *string
	}{{set.Cert, &p.cert}, {set.Key, &p.key}, {set.CA, &p.ca}} {
		if f.path == "" {
			continue
		}
		// Go on after a failure: the directories of all files are to be watched.
		if *f.into, err = r.file(f.path); err != nil && missing == nil {
			missing = err
		}
	}
	return p, missing
}

func (r *resolver) file(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for range maxLinks {
		dir, err := r.dir(filepath.Dir(path))
		if err != nil {
			return "", err
		}
		path = filepath.Join(dir, filepath.Base(path))
		info, err := os.Lstat(path)
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			return path, nil
		}
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		path = target
	}
	return "", &fs.PathError{Op: "readlink", Path: path, Err: errors.New("too many symbolic links")}
}

func (r *resolver) dir(dir string) (string, error) {
	if known, ok := r.real[dir]; ok {
		return known, nil
	}
	r.dirs = append(r.dirs, filepath.Dir(dir)) // where dir itself, a directory or a link, is replaced
	target, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	r.real[dir] = target
	r.dirs = append(r.dirs, target, filepath.Dir(target))
	return target, nil
}

// watched lists the directories whose entries decide what the files are. One
// that does not exist stands for the nearest that does: it appears there first.
func (r *resolver) watched() []string {
	var out []string
	for _, d := range r.dirs {
		for {
			if info, err := os.Stat(d); err == nil && info.IsDir() || d == filepath.Dir(d) {
				break
			}
			d = filepath.Dir(d)
		}
		out = append(out, d)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
