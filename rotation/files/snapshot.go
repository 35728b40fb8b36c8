package files

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/fileperm"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
)

const (
	maxFile  = 1 << 20            // bytes; a bundle of 400 roots is a third of it
	maxLists = stepapi.MaxRevoked // bytes, of revocation lists and of what is kept of earlier ones
)

// fileSnapshot is the content of one set of files, through one resolution of links.
type fileSnapshot struct {
	parts   map[string]fileContent // by name; a missing optional file has none
	failed  map[string]error       // likewise, for files that only the other certificates need
	digest  [sha256.Size]byte      // of all content, failures, and modes that expose a key
	touched time.Time              // the latest modification of a file
	version string                 // the name of the directory of the first file, without links
}

// fileContent is one file of a snapshot.
type fileContent struct {
	data []byte
	sum  [sha256.Size]byte
	dir  string // without links

	exposed string // the mode of a key file that others can read, else ""
}

// load reads the files of a set. paths has where they are, failed which could not be
// resolved. A file that only the other certificates need may fail.
func load(p resolvedSet, paths map[string]string, failed map[string]error) (*fileSnapshot, error) {
	r := &fileSnapshot{parts: map[string]fileContent{}, failed: maps.Clone(failed)}
	all := sha256.New()
	for i, name := range p.names() {
		if r.failed[name] != nil {
			r.sumFailure(all, name)
			continue
		}
		path, there := paths[name]
		if !there {
			_, _ = all.Write([]byte("missing")) // shorter than any sum; a hash does not fail
			continue
		}
		limit := int64(maxFile)
		if name == p.crl || name == p.kept {
			limit = maxLists
		}
		data, info, err := readFile(path, limit)
		if err != nil && p.spare(name) {
			r.failed[name] = err
			r.sumFailure(all, name)
			continue
		}
		if err != nil {
			return nil, err
		}
		if touched := info.ModTime(); touched.After(r.touched) {
			r.touched = touched
		}
		f := fileContent{data: data, sum: sha256.Sum256(data), dir: filepath.Dir(path)}
		if fileperm.Exposed(info) && p.secret(name) {
			f.exposed = fmt.Sprintf("%04o", info.Mode().Perm())
			_, _ = all.Write([]byte(f.exposed)) // so that a change of the mode is noticed
		}
		r.parts[name] = f
		_, _ = all.Write(f.sum[:])
		if i == 0 {
			r.version = filepath.Base(f.dir)
		}
	}
	all.Sum(r.digest[:0])
	return r, nil
}

// sumFailure adds the failure of a file to the digest, so that another failure is a change.
func (r *fileSnapshot) sumFailure(all hash.Hash, name string) {
	sum := sha256.Sum256([]byte("failed " + r.failed[name].Error()))
	_, _ = all.Write(sum[:]) // a hash does not fail
}

// readFile reads the regular file at a path without links, of limit bytes at most. It
// never blocks: O_NONBLOCK is for a named pipe that is put there after Lstat.
func readFile(path string, limit int64) (data []byte, opened fs.FileInfo, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // Windows has no such pipes and ignores it
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }() // read only: nothing to lose
	opened, err = f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !os.SameFile(info, opened) {
		return nil, nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("replaced in this instant")}
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, nil, err
	}
	if int64(len(b)) > limit {
		return nil, nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("longer than %d bytes", limit)}
	}
	return b, opened, nil
}

// material parses the files, and checks that each key fits its certificate: between two
// writes of a program that does not rename it does not, and the caller tries again. A
// fault of one of the other certificates is no error here; it is in OtherErrors.
// Errors have paths, never contents.
func (r *fileSnapshot) material(p resolvedSet) (m rotation.Material, err error) {
	m.Version = r.version
	for i, names := range p.pairs {
		c, err := r.loadPair(names)
		switch {
		case i > 0:
			m.Others, m.OtherNames, m.OtherErrors = append(m.Others, c), append(m.OtherNames, names.Cert), append(m.OtherErrors, err)
		case err != nil:
			return rotation.Material{}, err
		default:
			m.Certificate = c
		}
	}
	for _, name := range p.names() {
		if mode := r.parts[name].exposed; mode != "" {
			m.Faults = append(m.Faults, fmt.Sprintf("others can read the private key in %s: its mode is %s, want 0600", name, mode))
		}
	}
	if p.ca != "" {
		if m.Roots, err = pemfile.Certificates(r.parts[p.ca].data); err != nil {
			return rotation.Material{}, fmt.Errorf("reading trust bundle %s: %w", p.ca, err)
		}
	}
	if crl, there := r.parts[p.crl]; there {
		if m.Revoked, m.Issuers, err = pemfile.RevocationLists(crl.data); err != nil {
			return rotation.Material{}, fmt.Errorf("reading revocation lists %s: %w", p.crl, err)
		}
	}
	m.Kept = r.parts[p.kept].data
	return m, nil
}

// loadPair returns a certificate with its key. On errors it has the leaf alone, if that
// can be read, so that a log can name it.
func (r *fileSnapshot) loadPair(names Pair) (tls.Certificate, error) {
	chain, key, err := r.chainAndKey(names)
	if err != nil {
		c := tls.Certificate{}
		if chain != nil {
			c.Leaf = chain[0]
		}
		return c, err
	}
	if !certs.Fits(chain[0], key) {
		path := names.Key
		if path == "" {
			path = names.Cert
		}
		return tls.Certificate{Leaf: chain[0]}, fmt.Errorf("reading private key %s: it does not fit the first certificate of %s", path, names.Cert)
	}
	c := tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, cert := range chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c, nil
}

func (r *fileSnapshot) chainAndKey(names Pair) ([]*x509.Certificate, crypto.Signer, error) {
	if err := r.failed[names.Cert]; err != nil {
		return nil, nil, fmt.Errorf("reading certificate: %w", err)
	}
	cert := r.parts[names.Cert].data
	if names.Key == "" {
		chain, key, err := pemfile.Combined(cert)
		if err != nil {
			return nil, nil, fmt.Errorf("reading certificate and key %s: %w", names.Cert, err)
		}
		return chain, key, nil
	}
	chain, err := pemfile.Certificates(cert)
	if err != nil {
		return nil, nil, fmt.Errorf("reading certificate %s: %w", names.Cert, err)
	}
	if err := r.failed[names.Key]; err != nil {
		return chain, nil, fmt.Errorf("reading private key: %w", err)
	}
	key, err := pemfile.PrivateKey(r.parts[names.Key].data)
	if err != nil {
		return chain, nil, fmt.Errorf("reading private key %s: %w", names.Key, err)
	}
	return chain, key, nil
}

// trustContents is the set of roots, of issuers that have a list, and of intermediates
// that sign lists. A bundle or a file of lists that is cut between two blocks lacks some
// of them.
type trustContents map[string]bool

func contentsOf(m rotation.Material) trustContents {
	e := trustContents{}
	for _, c := range m.Roots {
		e["root "+string(c.Raw)] = true
	}
	for _, l := range m.Revoked { // by issuer, because a newer list takes the place of an older one
		e["list "+string(l.RawIssuer)] = true
	}
	for _, c := range m.Issuers {
		e["issuer "+string(c.Raw)] = true
	}
	return e
}

// missingFrom reports whether m lacks any of e.
func (e trustContents) missingFrom(m rotation.Material) bool {
	now := contentsOf(m)
	for k := range e {
		if !now[k] {
			return true
		}
	}
	return false
}

// leavesBundle reports whether a chain does not verify to the bundle of its set. That
// is a half-written set or an intended change of the root; content cannot tell which,
// so the caller waits longer.
func leavesBundle(m rotation.Material) bool {
	if m.Roots == nil {
		return false
	}
	pool, pairs := certs.Pool(m.Roots...), m.Others
	if m.Certificate.Leaf != nil {
		pairs = append(pairs[:len(pairs):len(pairs)], m.Certificate)
	}
	for _, c := range pairs {
		if c.Leaf == nil || len(c.Certificate) == 0 { // one of the others, which has an error
			continue
		}
		issuers := certs.Pool()
		for _, der := range c.Certificate[1:] {
			if issuer, err := x509.ParseCertificate(der); err == nil {
				issuers.AddCert(issuer)
			}
		}
		// For the time of the leaf and any usage: package rotation checks both.
		if _, err := c.Leaf.Verify(x509.VerifyOptions{
			Roots: pool, Intermediates: issuers, CurrentTime: c.Leaf.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		}); err != nil {
			return true
		}
	}
	return false
}
