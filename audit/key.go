package audit

import (
	"crypto"
	"crypto/ecdsa"
	"path/filepath"
	"strings"
	"sync"
)

// keyring are the files of a directory that may hold keys. Each is read once,
// by whoever comes first.
type keyring map[string]func() *file

// mayHoldKey reports whether [keyNames] can come up with this name.
func mayHoldKey(name string) bool { return strings.Contains(name, "key") }

func (k keyring) add(name string, read func() *file) { k[name] = sync.OnceValue(read) }

// keyFor finds the key that belongs to a certificate of f: in the same file, or
// in the one of the directory whose name says so. nil if there is none to compare.
func keyFor(f *file, c *Certificate, among keyring) *KeyFile {
	if f.hasKey() {
		return f.keyFile(c)
	}
	if len(among) == 0 {
		return nil
	}
	for _, name := range keyNames(f.path) {
		if among[name] == nil {
			continue
		}
		if k := among[name](); k != nil && k.hasKey() {
			return k.keyFile(c)
		}
	}
	return nil
}

func (f *file) keyFile(c *Certificate) *KeyFile {
	out := &KeyFile{Path: f.path, Mode: f.mode}
	loose, leaves := false, 0
	for _, p := range f.parts {
		out.Fits = out.Fits || p.key != nil && fits(c, p.key)
		if p.in != nil {
			loose, out.Locked = loose || p.in.loose, out.Locked || p.in.locked
			if p.isKey && p.in.mode != 0 {
				out.Mode = p.in.mode
			}
		}
		if p.cert != nil && !p.cert.isCA {
			leaves++
		}
	}
	if loose && leaves > 1 && !out.Fits {
		return nil // a store keeps certificates of others as well
	}
	return out
}

func fits(c *Certificate, key crypto.PublicKey) bool {
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
