package source

import (
	"crypto"
	"crypto/ecdsa"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/format"
)

// keyring are the files of a directory that may hold keys, by name. Each is read once, by
// the first goroutine that needs it.
type keyring map[string]func() *file

// mayHoldKey reports whether [keyNames] can return this name.
func mayHoldKey(name string) bool { return strings.Contains(name, "key") }

// add adds a file. read is called once at most.
func (k keyring) add(name string, read func() *file) { k[name] = sync.OnceValue(read) }

// files returns all files in the order of their names, and reads those that were not read.
func (k keyring) files() (out []*file) {
	for _, name := range slices.Sorted(maps.Keys(k)) {
		out = append(out, k[name]())
	}
	return out
}

// keyCandidates are the keys that may belong to the certificates of a file: the keys in the
// file, and those in files of its directory with a fitting name.
type keyCandidates struct {
	keys   []candidateKey
	loose  bool              // the file has unrelated certificates too, so not each has a key
	leaves int               // certificates of leaves, and parts that could not be read
	first  *cert.Certificate // of the file
	fitted bool              // a certificate of the file has its key here
	whole  bool              // the file is the chain of its first certificate, whose key this is
}

// candidateKey is a key with its public half, which is nil if the key cannot be compared.
type candidateKey struct {
	cert.KeyFile
	public crypto.PublicKey
}

// keyCandidatesOf returns the candidates for a file in a directory with some key files.
func keyCandidatesOf(f *file, among keyring) (h keyCandidates) {
	for i, p := range f.parts {
		if p.Cert != nil && h.first == nil {
			h.first = p.Cert
		}
		if p.Cert != nil && !p.Cert.IsCA || p.DER != nil || p.Err != nil && !p.IsKey {
			h.leaves++
		}
		h.loose = h.loose || p.In != nil && p.In.Loose
		h.add(f, &f.parts[i])
	}
	if len(among) > 0 {
		for _, name := range keyNames(f.path) {
			if among[name] == nil {
				continue
			}
			if k := among[name](); k != nil && k != f && k.path != f.path {
				for i := range k.parts {
					h.add(k, &k.parts[i])
				}
			}
		}
	}
	h.loose = h.loose && h.leaves > 1
	h.fitted = slices.ContainsFunc(f.parts, func(p format.Part) bool { return p.Cert != nil && h.fitting(p.Cert) != nil })
	h.whole = !h.loose && len(h.keys) == 1 && h.first != nil && h.fitting(h.first) != nil
	return h
}

// add adds a part of a file if it is a key that could be read.
func (h *keyCandidates) add(f *file, p *format.Part) {
	if p.IsKey && p.Err == nil {
		h.keys = append(h.keys, candidateKey{*f.keyFile(p), p.Key})
	}
}

// keyFile returns what is known of the key in a part of the file.
func (f *file) keyFile(p *format.Part) *cert.KeyFile {
	by := f.Access
	k := &cert.KeyFile{Path: f.path, Locked: p.Locked, Opaque: p.Key == nil}
	if p.In != nil {
		k.Locked = k.Locked || p.In.Locked
		if p.In.Access != nil {
			by = *p.In.Access
		}
	}
	k.Mode, k.OfRoot, k.Oddity = by.Mode, by.OfRoot, p.Oddity
	return k
}

// fitting returns the key of a certificate, or nil.
func (h *keyCandidates) fitting(c *cert.Certificate) *cert.KeyFile {
	for _, k := range h.keys {
		if k.public != nil && fits(c, k.public) {
			k.Fits = true
			return &k.KeyFile
		}
	}
	return nil
}

// of returns the key with which a certificate is judged: the one that fits, else one that
// cannot be compared, else the first, which does not fit. It returns nil if no key is
// expected: for a certificate behind the first of a chain whose key is there, for one
// among unrelated certificates, and for authorities that share a file with others.
func (h *keyCandidates) of(c *cert.Certificate) *cert.KeyFile {
	if k := h.fitting(c); k != nil || len(h.keys) == 0 || h.loose || h.whole {
		return k
	}
	if c.IsCA && (h.leaves > 0 || h.fitted || c != h.first) {
		return nil
	}
	for _, k := range h.keys {
		if k.public == nil {
			return &k.KeyFile
		}
	}
	return &h.keys[0].KeyFile
}

// fits reports whether a public key is that of a certificate.
func fits(c *cert.Certificate, key crypto.PublicKey) bool {
	x := c.X509()
	if x == nil {
		return false
	}
	if k, ok := key.(*ecdsa.PublicKey); ok && k == nil {
		return false
	}
	public, ok := x.PublicKey.(interface {
		Equal(other crypto.PublicKey) bool
	})
	return ok && public.Equal(key)
}

// keyNames returns the names that programs give to the key of a certificate file: tls.crt
// and tls.key, cert.pem and key.pem, fullchain.pem and privkey.pem, a-cert.pem and
// a-key.pem, a.pem and a-key.pem, root_ca.crt and root_ca_key.
func keyNames(path string) []string {
	base := filepath.Base(path)
	ext := filepath.Ext(base)
	name := strings.TrimSuffix(base, ext)
	out := []string{name + ".key", name + "-key" + ext, name + "_key" + ext}
	if ext != "" {
		out = append(out, name+"_key")
	}
	for _, pair := range [][2]string{{"cert", "key"}, {"fullchain", "privkey"}, {"chain", "privkey"}} {
		if replaced := strings.Replace(name, pair[0], pair[1], 1); replaced != name {
			out = append(out, replaced+ext, replaced+".key")
		}
	}
	return out
}
