package rotation

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

	"github.com/artstore/artstore-pki/internal/fileperm"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

const (
	maxFile  = 1 << 20            // bytes; a bundle of 400 roots is a third of it
	maxLists = stepapi.MaxRevoked // bytes, of revocation lists and of what is kept of earlier ones
)

// reading is the content of one set of files, through one resolution of links.
type reading struct {
	parts   map[string]part  // by the name in the plan; a missing optional file has none
	failed  map[string]error // likewise, for files that the own certificate can do without
	digest  [sha256.Size]byte
	touched time.Time // the latest modification
	version string    // the directory that the first file really came from
}

type part struct {
	data []byte
	sum  [sha256.Size]byte
	dir  string // the real one

	exposed string // the mode by which others can read it, if it were a key
}

func load(p plan, paths map[string]string, failed map[string]error) (*reading, error) {
	r := &reading{parts: map[string]part{}, failed: maps.Clone(failed)}
	all := sha256.New()
	for i, name := range p.names() {
		if r.failed[name] != nil {
			r.sumFailure(all, name)
			continue
		}
		path, there := paths[name]
		if !there {
			_, _ = all.Write([]byte("missing")) // a hash does not fail; shorter than any sum
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
		f := part{data: data, sum: sha256.Sum256(data), dir: filepath.Dir(path)}
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

// sumFailure has the digest tell one failure from another.
func (r *reading) sumFailure(all hash.Hash, name string) {
	sum := sha256.Sum256([]byte("failed " + r.failed[name].Error()))
	_, _ = all.Write(sum[:]) // a hash does not fail
}

// readFile reads the regular file that stands at a resolved path. It never
// waits: a pipe would, and may be put there between the look and the opening.
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

// material parses strictly and checks that the pairs fit: between the two
// writes of a careless writer they do not, and nobody needs to hear of that.
// What is wrong with one of the other certificates is for the gate to say.
// Errors name paths, never contents.
func (r *reading) material(p plan) (m Material, err error) {
	m.Version = r.version
	for i, names := range p.pairs {
		c, err := r.pair(names)
		switch {
		case i > 0:
			m.Others, m.others = append(m.Others, c), append(m.others, otherFile{names.Cert, err})
		case err != nil:
			return Material{}, err
		default:
			m.Certificate = c
		}
	}
	for _, name := range p.names() {
		if mode := r.parts[name].exposed; mode != "" {
			m.exposed = append(m.exposed, fmt.Sprintf("others can read the private key in %s: its mode is %s, want 0600", name, mode))
		}
	}
	if p.ca != "" {
		if m.Roots, err = pemfile.Certificates(r.parts[p.ca].data); err != nil {
			return Material{}, fmt.Errorf("reading trust bundle %s: %w", p.ca, err)
		}
	}
	if crl, there := r.parts[p.crl]; there {
		if m.Revoked, m.Issuers, err = pemfile.RevocationLists(crl.data); err != nil {
			return Material{}, fmt.Errorf("reading revocation lists %s: %w", p.crl, err)
		}
	}
	m.Kept = r.parts[p.kept].data
	return m, nil
}

func (r *reading) pair(names FilePair) (tls.Certificate, error) {
	chain, key, err := r.chainAndKey(names)
	if err != nil {
		c := tls.Certificate{}
		if chain != nil {
			c.Leaf = chain[0] // so that a log can name it
		}
		return c, err
	}
	if !pemfile.Fits(chain[0], key) {
		path := names.Key
		if path == "" {
			path = names.Cert
		}
		// With the leaf, so that a log can name it.
		return tls.Certificate{Leaf: chain[0]}, fmt.Errorf("reading private key %s: it does not fit the first certificate of %s", path, names.Cert)
	}
	c := tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, cert := range chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c, nil
}

func (r *reading) chainAndKey(names FilePair) ([]*x509.Certificate, crypto.Signer, error) {
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

// essentials are what peers may lose when a bundle or a list is cut between two
// blocks: the roots, the issuers that have a list, and the intermediates among
// these.
type essentials map[string]bool

func essentialsOf(m Material) essentials {
	e := essentials{}
	for _, c := range m.Roots {
		e["root "+string(c.Raw)] = true
	}
	for _, l := range m.Revoked { // whose lists follow each other
		e["list "+string(l.RawIssuer)] = true
	}
	for _, c := range m.Issuers {
		e["issuer "+string(c.Raw)] = true
	}
	return e
}

// lostIn reports whether m lacks any of e.
func (e essentials) lostIn(m Material) bool {
	now := essentialsOf(m)
	for k := range e {
		if !now[k] {
			return true
		}
	}
	return false
}

// strays reports whether a chain does not lead to the bundle beside it: so look
// a chain cut between two blocks and the parts of two sets, but on the way from
// one root to another also what is meant.
func strays(m Material) bool {
	if m.Roots == nil {
		return false
	}
	pool, pairs := poolOf(m.Roots), m.Others
	if m.Certificate.Leaf != nil {
		pairs = append(pairs[:len(pairs):len(pairs)], m.Certificate)
	}
	for _, c := range pairs {
		if c.Leaf == nil || len(c.Certificate) == 0 { // one of the others, which is refused anyway
			continue
		}
		chain := []*x509.Certificate{c.Leaf}
		for _, der := range c.Certificate[1:] {
			if issuer, err := x509.ParseCertificate(der); err == nil {
				chain = append(chain, issuer)
			}
		}
		// At its own time: whether it is expired the gate decides.
		if _, err := verify(chain, x509.VerifyOptions{Roots: pool, CurrentTime: c.Leaf.NotBefore, KeyUsages: anyUsage}); err != nil {
			return true
		}
	}
	return false
}
