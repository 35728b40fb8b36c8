package setup

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/keystore"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/secret"
)

// Existing are CA certificates that were made elsewhere, with their keys. The authority goes
// on with them, so clients that trust the root need nothing new. Revocations and tokens of
// what issued before are not known to it. Keys are stored as those that Init makes.
//
// There are three forms: Root and RootKey, under which Init makes an intermediate; these and
// the two of an intermediate; and the latter with a Root without a key, which stays elsewhere.
type Existing struct {
	Root            *x509.Certificate
	RootKey         crypto.Signer
	Intermediate    *x509.Certificate
	IntermediateKey crypto.Signer
}

// ExistingFiles are paths of PEM files for [ReadExisting]. An empty one is not read.
type ExistingFiles struct {
	Root, RootKey, Intermediate, IntermediateKey string
	// Password decrypts those keys that are encrypted.
	Password secret.String
}

// ReadExisting reads certificates and keys: PKCS #8, SEC 1 or PKCS #1, encrypted or not. The file
// of the intermediate may have its root behind it, and then Root may be empty. An encrypted
// key without a password is [ca.ErrNoPassword].
func ReadExisting(files ExistingFiles) (have Existing, err error) {
	if files.Root != "" {
		chain, err := readChain(files.Root)
		if err != nil {
			return have, err
		}
		if len(chain) != 1 {
			return have, fmt.Errorf("reading %s: %d certificates, want that of the root alone", files.Root, len(chain))
		}
		have.Root = chain[0]
	}
	if files.Intermediate != "" {
		chain, err := readChain(files.Intermediate)
		if err != nil {
			return have, err
		}
		have.Intermediate = chain[0]
		switch {
		case len(chain) == 2 && (have.Root == nil || have.Root.Equal(chain[1])):
			have.Root = chain[1]
		case len(chain) > 1:
			return have, fmt.Errorf("reading %s: %d certificates, want that of the intermediate, and after it that of the root", files.Intermediate, len(chain))
		}
	}
	for path, key := range map[string]*crypto.Signer{files.RootKey: &have.RootKey, files.IntermediateKey: &have.IntermediateKey} {
		if path == "" {
			continue
		}
		if *key, err = (statedir.Dir{Password: files.Password}).ImportKey(path); err != nil {
			return have, err
		}
	}
	return have, nil
}

func readChain(path string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading a certificate: %w", err)
	}
	chain, err := pemfile.Certificates(data)
	if err != nil {
		return nil, fmt.Errorf("reading certificate %s: %w", path, err)
	}
	return chain, nil
}

// existing is the inner form of Existing: what is there is known to fit.
type existing struct{ root, intermediate cacert.Issuer }

// open opens the keys that are in key stores, and checks that all fits.
func (have Existing) open(opt Options) (out existing, err error) {
	for _, one := range []struct {
		cert *x509.Certificate
		key  *crypto.Signer
		uri  string
		to   *cacert.Issuer
	}{{have.Root, &have.RootKey, opt.Root.KMS, &out.root}, {have.Intermediate, &have.IntermediateKey, opt.Intermediate.KMS, &out.intermediate}} {
		if one.cert != nil && *one.key == nil && one.uri != "" {
			if *one.key, err = keystore.Open(one.uri); err != nil {
				return out, fmt.Errorf("importing: %w", err)
			}
			one.to.KeyURI = one.uri
		}
		one.to.Cert, one.to.Key = one.cert, *one.key
	}
	return out, have.check()
}

// check refuses what an authority cannot work with.
func (have Existing) check() error {
	switch {
	case have == Existing{}:
		return nil
	case have.Root == nil:
		return errors.New("importing: the certificate of the root is missing")
	case have.Intermediate == nil && have.RootKey == nil:
		return errors.New("importing: without the key of the root no intermediate can be made, and none is given")
	case (have.Intermediate == nil) != (have.IntermediateKey == nil):
		return errors.New("importing: an intermediate is imported with its certificate and its key")
	}
	if err := cacert.CheckRoot(have.Root); err != nil {
		return fmt.Errorf("importing: %w", err)
	}
	if have.RootKey != nil && !certs.Fits(have.Root, have.RootKey) {
		return fmt.Errorf("importing: it is not the key of the root %q", have.Root.Subject.CommonName)
	}
	if have.Intermediate == nil {
		return nil
	}
	if err := cacert.Check(have.Intermediate, have.Root, have.IntermediateKey.Public()); err != nil {
		return fmt.Errorf("importing: %w", err)
	}
	return nil
}
