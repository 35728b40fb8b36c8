package statedir

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"go.step.sm/crypto/pemutil"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/keystore"
	"github.com/artstore/artstore-pki/ca/internal/keytype"
	"github.com/artstore/artstore-pki/internal/certs"
)

// KeyPath is where the key of a CA certificate is, by its fingerprint.
func (f Dir) KeyPath(fp string) string { return f.File("secrets/" + fp + ".key") }

// uriPath is where the URI of a key is that is in a key store.
func (f Dir) uriPath(fp string) string { return f.File("certs/" + fp + ".uri") }

// keyURI returns where the key of a certificate is, and "" if that is not in a key store.
func (f Dir) keyURI(fp string) (string, error) {
	data, err := os.ReadFile(f.uriPath(fp))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading where a key is: %w", err)
	}
	return string(bytes.TrimSpace(data)), nil
}

// NewKey makes a key for a new CA certificate. store is the URI of a key store, and "" means
// that the key is for the state directory. The URI that it returns is for [cacert.Template].
func (f Dir) NewKey(kind, store string) (key crypto.Signer, uri string, err error) {
	if store == "" {
		key, err = keytype.New(kind)
		return key, "", err
	}
	return keystore.New(store, kind)
}

// ReadKey returns the key of a CA certificate: that in secrets/, or else that of the key store
// that the certificate was made with. elsewhere is where the key is if it is in neither: the
// path of a file or the URI of a key, as root_key of pki.yaml has it.
func (f Dir) ReadKey(cert *x509.Certificate, elsewhere string) (key crypto.Signer, err error) {
	fp := certs.Fingerprint(cert)
	where := f.KeyPath(fp)
	data, err := os.ReadFile(where)
	if errors.Is(err, fs.ErrNotExist) {
		uri, uriErr := f.keyURI(fp)
		switch {
		case uriErr != nil:
			return nil, uriErr
		case uri != "":
			where = uri
		case elsewhere != "":
			where = elsewhere
		}
	}
	if path := keystore.Path(where); path == "" {
		if key, err = keystore.Open(where); err != nil {
			return nil, fmt.Errorf("opening the key of %q: %w", cert.Subject.CommonName, err)
		}
	} else {
		if data == nil {
			data, err = os.ReadFile(path)
		}
		if err != nil {
			return nil, fmt.Errorf("reading the key of %q: %w", cert.Subject.CommonName, err)
		}
		if key, err = f.forKeyOf(cert).decodeKey(data); err != nil {
			if errors.Is(err, ErrWrongPassword) && cacert.IsRoot(cert) && f.RootPassword.IsZero() && f.RootPasswordFile == "" {
				err = fmt.Errorf("%w, or the root has a password of its own", err)
			}
			return nil, fmt.Errorf("reading key %s: %w", path, err)
		}
	}
	if !certs.Fits(cert, key) {
		return nil, fmt.Errorf("reading key %s: it is not the key of %q", where, cert.Subject.CommonName)
	}
	return key, nil
}

// forKeyOf returns f with the password that the key of this certificate has: a root may have
// one of its own.
func (f Dir) forKeyOf(cert *x509.Certificate) Dir {
	if cacert.IsRoot(cert) && (!f.RootPassword.IsZero() || f.RootPasswordFile != "") {
		f.Password, f.PasswordFile = f.RootPassword, f.RootPasswordFile
	}
	return f
}

func (f Dir) encodeKey(key crypto.Signer) ([]byte, error) {
	opts := []pemutil.Options{pemutil.WithPKCS8(true)}
	if !f.Plain {
		pw, err := f.keyPassword()
		if err != nil {
			return nil, err
		}
		opts = append(opts, pemutil.WithPassword([]byte(pw.Expose())))
	}
	block, err := pemutil.Serialize(key, opts...)
	if err != nil {
		return nil, errors.New("encrypting a key: the library refused it")
	}
	return pem.EncodeToMemory(block), nil
}

// openKey parses and decrypts one form of a key. It does not return the error of the library,
// whose text may quote the file.
func (f Dir) openKey(data []byte) (crypto.Signer, error) {
	var opts []pemutil.Options
	if !isPlain(data) {
		pw, err := f.keyPassword()
		if err != nil {
			return nil, err
		}
		opts = append(opts, pemutil.WithPassword([]byte(pw.Expose())))
	}
	key, err := pemutil.ParseKey(data, opts...)
	if err != nil {
		return nil, fmt.Errorf("%w, or not a private key", ErrWrongPassword)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%T cannot sign", key)
	}
	return signer, nil
}

// KeptPlain reports whether the key of the issuing intermediate is not encrypted, or, if that is
// in a key store, the key of the log. Later keys are written in the same way.
func (f Dir) KeptPlain(issuing *x509.Certificate) (bool, error) {
	data, err := os.ReadFile(f.KeyPath(certs.Fingerprint(issuing)))
	if errors.Is(err, fs.ErrNotExist) {
		data, err = os.ReadFile(f.File(logKeyFile))
	}
	if err != nil {
		return false, fmt.Errorf("reading the issuing key: %w", err)
	}
	return isPlain(data), nil
}

// isPlain reports whether a key needs no password.
func isPlain(data []byte) bool {
	block, _ := pem.Decode(data)
	return block != nil && block.Type == "PRIVATE KEY"
}
