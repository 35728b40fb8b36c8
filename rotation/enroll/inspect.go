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

// Inspection is what an identity directory holds, whoever wrote it.
type Inspection struct {
	// Missing names those of tls.crt, tls.key and ca.crt that are not there, and Err
	// says why one of them cannot be read. In either case Chain, Roots and KeyFits are
	// not to be relied on.
	Missing []string
	Err     error

	Chain      []*x509.Certificate // tls.crt, leaf first
	Roots      []*x509.Certificate // ca.crt
	KeyFits    bool                // tls.key is the key of the leaf
	KeyExposed bool                // others than its owner can read tls.key
	Unfinished bool                // an enrolment was begun, and its certificate is not stored
	Foreign    error               // names what [Issue] would refuse to replace, nil for nothing; matches fs.ErrExist
}

// Inspect reads dir and changes nothing; the directory may be absent. The files are
// of one generation, also while a [Source] replaces them.
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

// read reads the three files in from, the current generation of dir or dir
// itself, strictly. A file whose link in dir is gone is missing as well: programs
// look for it there.
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
