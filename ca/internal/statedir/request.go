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
	"slices"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/keystore"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// An intermediate that is signed elsewhere.
//
//	request/intermediate.csr   the request, PEM: what the holder of the root signs
//	request/intermediate.key   its key, as those in secrets/
//	request/intermediate.uri   in place of that, where the key is, if it is in a key store
//	request/pki.yaml           only before the first certificate: becomes pki.yaml
//
// The directory exists while the authority waits for the certificate. The key is written before
// the request: a request without a key would be signed for nothing.
const (
	requestDir    = "request"
	requestFile   = "request/intermediate.csr"
	requestConfig = "request/pki.yaml"
	requestKey    = "request/intermediate.key"
	requestURI    = "request/intermediate.uri"
	typeCSR       = "CERTIFICATE REQUEST" // RFC 7468 §7
)

var (
	// ErrWaiting reports a directory that init has made for a root that somebody else holds.
	ErrWaiting = errors.New("the authority waits for the certificate of its intermediate")
	// ErrNoRequest reports that no request is open.
	ErrNoRequest = errors.New("no intermediate was requested")
)

// Waiting reports whether the directory becomes an authority with the certificate of its
// intermediate.
func Waiting(dir string) bool {
	if _, err := os.Lstat(Path(dir, ConfigFile)); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	_, err := os.Lstat(Path(dir, requestConfig))
	return err == nil
}

// RequestPath is where the request is, while there is one.
func (f Dir) RequestPath() string { return f.File(requestFile) }

// RequestedConfig is where pki.yaml is before the first certificate.
func (f Dir) RequestedConfig() string { return f.File(requestConfig) }

// WriteRequest stores a request (DER) and its key, or the URI of the key.
func (f Dir) WriteRequest(der []byte, key crypto.Signer, uri string) error {
	if err := durable.MkdirAll(f.File(requestDir)); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	name, data := requestURI, []byte(uri+"\n")
	if uri == "" {
		var err error
		name = requestKey
		if data, err = f.encodeKey(key); err != nil {
			return err
		}
	}
	if err := durable.WriteFile(f.File(name), data, durable.Private); err != nil {
		return fmt.Errorf("writing the key of the request: %w", err)
	}
	if err := durable.WriteFile(f.RequestPath(), pem.EncodeToMemory(&pem.Block{Type: typeCSR, Bytes: der}), durable.Public); err != nil {
		return fmt.Errorf("writing the request: %w", err)
	}
	return nil
}

// ReadRequest returns the open request as text (PEM) and parsed. [ErrNoRequest] means that there
// is none.
func (f Dir) ReadRequest() (text []byte, csr *x509.CertificateRequest, err error) {
	path := f.RequestPath()
	text, err = os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, ErrNoRequest
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the request: %w", err)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != typeCSR || len(bytes.TrimSpace(rest)) > 0 {
		return nil, nil, fmt.Errorf("reading the request %s: it is none", path)
	}
	if csr, err = x509.ParseCertificateRequest(block.Bytes); err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the request %s: %w", path, err)
	}
	return text, csr, nil
}

// OpenRequest returns the open request as text (PEM), or makes one. An open request whose key
// has a certificate already was answered by a process that was killed then; it is replaced,
// because two certificates with one key could not be told apart. store is as for [Dir.NewKey].
func (f Dir) OpenRequest(want cacert.Template, store string) (text []byte, err error) {
	text, csr, err := f.ReadRequest()
	if err == nil {
		var used bool
		if used, err = f.hasCertificate(csr.PublicKey); err == nil && !used {
			return text, nil
		}
	}
	if err != nil && !errors.Is(err, ErrNoRequest) {
		return nil, err
	}
	if err := f.DropRequest(); err != nil {
		return nil, err
	}
	if want.Key, want.KeyURI, err = f.NewKey(want.KeyType, store); err != nil {
		return nil, err
	}
	der, key, err := cacert.Request(want)
	if err != nil {
		return nil, err
	}
	if err := f.WriteRequest(der, key, want.KeyURI); err != nil {
		return nil, err
	}
	text, _, err = f.ReadRequest()
	return text, err
}

// hasCertificate reports whether a CA certificate in the directory has the key.
func (f Dir) hasCertificate(key crypto.PublicKey) (bool, error) {
	roots, others, err := f.Authorities()
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(slices.Concat(roots, others), func(c *x509.Certificate) bool { return samePublicKey(c.PublicKey, key) }), nil
}

func samePublicKey(a, b crypto.PublicKey) bool {
	public, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(b)
}

// Answer reads what the holder of a root has made for the open request: the intermediate, and
// after it its root, unless that is among roots. It returns them, the intermediate with its
// key. Nothing is written. Faults of the certificates are errors of [cacert.Check].
func (f Dir) Answer(text []byte, roots []*x509.Certificate) (issuing cacert.Issuer, root *x509.Certificate, err error) {
	_, csr, err := f.ReadRequest()
	if err != nil {
		return issuing, nil, err
	}
	chain, err := pemfile.Certificates(text)
	if err != nil {
		return issuing, nil, fmt.Errorf("reading the signed certificate: %w", err)
	}
	switch len(chain) {
	case 1:
		root = cacert.RootOf(chain[0], roots)
	case 2:
		root = chain[1]
	}
	if root == nil {
		return issuing, nil, errors.New("reading the signed certificate: want the intermediate, and after it its root, if that is not in the trust bundle")
	}
	if err := cacert.Check(chain[0], root, csr.PublicKey); err != nil {
		return issuing, nil, err
	}
	issuing.Cert = chain[0]
	uri, err := os.ReadFile(f.File(requestURI))
	if err == nil {
		issuing.KeyURI = string(bytes.TrimSpace(uri))
		issuing.Key, err = keystore.Open(issuing.KeyURI)
	} else if errors.Is(err, fs.ErrNotExist) {
		var data []byte
		if data, err = os.ReadFile(f.File(requestKey)); err == nil {
			issuing.Key, err = f.decodeKey(data)
		}
	}
	if err == nil && !certs.Fits(issuing.Cert, issuing.Key) {
		err = errors.New("it does not fit the request")
	}
	if err != nil {
		return issuing, nil, fmt.Errorf("reading the key of the request: %w", err)
	}
	return issuing, root, nil
}

// AdoptRequest stores the certificate that answers the request, and the key beside it. No
// password is needed, because the key stays as it is. The request stays open until
// [Dir.DropRequest], so a caller that is killed before current.json can begin again. The
// caller has compared the certificate with the request.
func (f Dir) AdoptRequest(cert *x509.Certificate) error {
	to, mode := f.KeyPath(certs.Fingerprint(cert)), durable.Private
	key, err := os.ReadFile(f.File(requestKey))
	if errors.Is(err, fs.ErrNotExist) {
		to, mode = f.uriPath(certs.Fingerprint(cert)), durable.Public
		key, err = os.ReadFile(f.File(requestURI))
	}
	if err != nil {
		return fmt.Errorf("reading the key of the request: %w", err)
	}
	if err := durable.WriteFile(to, key, mode); err != nil {
		return fmt.Errorf("writing key: %w", err)
	}
	return f.WriteCert(cert)
}

// DropRequest removes the request with its key. Without one it does nothing.
func (f Dir) DropRequest() error {
	if err := os.RemoveAll(f.File(requestDir)); err != nil {
		return fmt.Errorf("removing the request: %w", err)
	}
	return nil
}

// FinishRequest makes a directory that waits an authority: current.json and all that it names
// are written already. A process that is killed after the rename has left an authority with
// a request that is answered, which the next call of DropRequest removes.
func (f Dir) FinishRequest() error {
	if err := os.Rename(f.RequestedConfig(), f.File(ConfigFile)); err != nil {
		return fmt.Errorf("moving the configuration into place: %w", err)
	}
	if err := durable.SyncDir(f.Path); err != nil {
		return fmt.Errorf("moving the configuration into place: %w", err)
	}
	return f.DropRequest()
}

// ImportKey reads a private key of another program: PEM in PKCS #8, SEC 1 or PKCS #1, encrypted
// with the password of f or not. The directory has no part in it. No error has a part of the file in it.
func (f Dir) ImportKey(path string) (key crypto.Signer, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	block, _ := pem.Decode(data)
	switch encrypted := block != nil && (block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != ""); {
	case !encrypted:
		key, err = pemfile.PrivateKey(data)
	case f.Password.IsZero():
		err = ErrNoPassword
	default:
		key, err = f.decodeKey(data)
	}
	if err != nil {
		return nil, fmt.Errorf("reading key %s: %w", path, err)
	}
	return key, nil
}
