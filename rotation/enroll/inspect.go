package enroll

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/fileperm"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// Inspection is the content of an identity directory. Any program may have written it.
type Inspection struct {
	// Missing has those of tls.crt, tls.key and ca.crt that do not exist, and Err says
	// why one of them cannot be read. In either case Chain, Roots and KeyFits may be
	// incomplete.
	Missing []string
	Err     error

	Chain      []*x509.Certificate // tls.crt, leaf first
	Roots      []*x509.Certificate // ca.crt
	KeyFits    bool                // tls.key is the key of the leaf
	KeyExposed bool                // others than its owner can read tls.key
	Unfinished bool                // an enrolment was begun, and its certificate is not stored
	Foreign    error               // has the file that [Issue] would refuse to replace, and matches fs.ErrExist; nil if there is none
}

// Inspect reads dir and changes nothing. The directory may be absent. The files are of one
// generation, even while a [Source] replaces them.
func Inspect(dir string) Inspection {
	var in Inspection
	if path, _ := firstForeign(dir); path != "" {
		in.Foreign = fmt.Errorf("%s is not ours to replace: %w", path, fs.ErrExist)
	}
	if entries, err := os.ReadDir(dir); err == nil {
		in.Unfinished = slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), pendingPrefix) })
	}
	from := dir
	if t, err := (&store{dir: dir}).currentTarget(); err == nil {
		from = filepath.Join(dir, t)
	}
	in.read(dir, from)
	return in
}

// read reads the three files strictly. from is the current generation of dir, or dir itself.
// A file whose link in dir is missing counts as missing too, because programs read it by
// that link.
func (in *Inspection) read(dir, from string) {
	var key crypto.Signer
	for _, f := range []struct {
		name  string
		parse func([]byte) error
	}{
		{keyName, func(b []byte) (err error) { key, err = pemfile.PrivateKey(b); return err }},
		{caName, func(b []byte) (err error) { in.Roots, err = pemfile.Certificates(b); return err }},
		{certName, func(b []byte) (err error) { in.Chain, err = pemfile.Certificates(b); return err }},
	} {
		b, err := os.ReadFile(filepath.Join(from, f.name))
		if err == nil {
			_, err = os.Lstat(filepath.Join(dir, f.name))
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			in.Missing = append(in.Missing, f.name)
			continue
		case err == nil:
			if err = f.parse(b); err != nil {
				err = fmt.Errorf("%s: %w", f.name, err)
			}
		}
		if err != nil && in.Err == nil {
			in.Err = err
		}
	}
	if info, err := os.Stat(filepath.Join(from, keyName)); err == nil {
		in.KeyExposed = fileperm.Exposed(info)
	}
	in.KeyFits = in.Err == nil && len(in.Missing) == 0 && certs.Fits(in.Chain[0], key)
	order := []string{certName, keyName, caName}
	slices.SortFunc(in.Missing, func(a, b string) int { return slices.Index(order, a) - slices.Index(order, b) })
}
