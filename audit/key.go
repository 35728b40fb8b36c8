package audit

import (
	"crypto"
	"crypto/ecdsa"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// keyring are the files of a directory that may hold keys. Each is read once,
// by whoever comes first.
type keyring map[string]func() *file

// mayHoldKey reports whether [keyNames] can come up with this name.
func mayHoldKey(name string) bool { return strings.Contains(name, "key") }

func (k keyring) add(name string, read func() *file) { k[name] = sync.OnceValue(read) }

// holder is a file with the keys in it.
type holder struct {
	*file
	keys []crypto.PublicKey
	held
}

// holderFor finds the file with the key that belongs to the certificates of f: the
// same file, or the one of the directory whose name says so. Without a file if
// there is none to compare.
func holderFor(f *file, among keyring) holder {
	if keys := f.keys(); len(keys) > 0 {
		return holder{f, keys, f.held()}
	}
	if len(among) == 0 {
		return holder{}
	}
	for _, name := range keyNames(f.path) {
		if among[name] == nil {
			continue
		}
		if k := among[name](); k != nil && len(k.keys()) > 0 {
			return holder{k, k.keys(), k.held()}
		}
	}
	return holder{}
}

// key is what there is to say of it beside a certificate.
func (h holder) key(c *Certificate) *KeyFile {
	if h.file == nil {
		return nil
	}
	fit := slices.ContainsFunc(h.keys, func(k crypto.PublicKey) bool { return fits(c, k) })
	if !fit && h.others {
		return nil
	}
	return &KeyFile{Path: h.path, Mode: h.by, Fits: fit, Locked: h.locked}
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
