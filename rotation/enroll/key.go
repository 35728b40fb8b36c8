package enroll

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/secret"
)

// KeyType is a kind of key, spelled as in pki.yaml: EC-P256, EC-P384, Ed25519, RSA-3072 or
// RSA-4096. RSA is for peers that support nothing else: a handshake costs many times more.
type KeyType string

// KeyTypes returns all kinds. The first one is the default.
func KeyTypes() []KeyType { return slices.Clone(keyTypes) }

const (
	keyECP256  KeyType = "EC-P256"
	keyECP384  KeyType = "EC-P384"
	keyEd25519 KeyType = "Ed25519"
	keyRSA3072 KeyType = "RSA-3072"
	keyRSA4096 KeyType = "RSA-4096"
)

var keyTypes = []KeyType{keyECP256, keyECP384, keyEd25519, keyRSA3072, keyRSA4096}

// check refuses unknown kinds. It accepts the zero value.
func (k KeyType) check() error {
	if k == "" || slices.Contains(keyTypes, k) {
		return nil
	}
	return fmt.Errorf("unknown key type %q: want one of %q", oneLine(string(k)), keyTypes)
}

// generate makes a key. P-256 is the default: a handshake costs a fraction of one with RSA,
// and every TLS library in use supports it, unlike Ed25519.
func (k KeyType) generate() (crypto.Signer, error) {
	switch k {
	case keyECP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case keyEd25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case keyRSA3072:
		return rsa.GenerateKey(rand.Reader, 3072) // 128 bits of strength (NIST SP 800-57 part 1 §5.6.1)
	case keyRSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// keyTypeOf returns the kind for a successor of key: the same kind, or the next stronger
// one if another program has made a key of another size.
func keyTypeOf(key crypto.Signer) KeyType {
	switch pub := key.Public().(type) {
	case ed25519.PublicKey:
		return keyEd25519
	case *rsa.PublicKey:
		if pub.N.BitLen() > 3072 {
			return keyRSA4096
		}
		return keyRSA3072
	case *ecdsa.PublicKey:
		if pub.Curve.Params().BitSize > 256 {
			return keyECP384
		}
	}
	return keyECP256
}

// request makes the CSR (PEM) for a subject and its names. The subject is only the common
// name; peers compare the names (RFC 9525 §2).
func request(key crypto.Signer, subject string, names []string) ([]byte, error) {
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: subject}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		if strings.Contains(n, "://") {
			u, err := url.Parse(n)
			if err != nil {
				return nil, fmt.Errorf("making the CSR: %q is not a URI", oneLine(n))
			}
			template.URIs = append(template.URIs, u)
			continue
		}
		if n == "" || strings.ContainsAny(n, "@/: \t") {
			return nil, fmt.Errorf("making the CSR: %q is neither a DNS name, an IP address nor a URI", oneLine(n))
		}
		template.DNSNames = append(template.DNSNames, n)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, fmt.Errorf("making the CSR: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// rekeyRequest makes the CSR (PEM) for a successor of cert with another key. Our authority
// takes the names from the certificate in the handshake. A stock step-ca compares those of
// the CSR, so they are the same.
func rekeyRequest(key crypto.Signer, cert *x509.Certificate) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:     pkix.Name{CommonName: cert.Subject.CommonName},
		DNSNames:    cert.DNSNames,
		IPAddresses: cert.IPAddresses,
		URIs:        cert.URIs,
	}, key)
	if err != nil {
		return nil, fmt.Errorf("making the CSR: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// pendingKeys has the key that a token was sent with. A one-time token is spent by the
// request, not by the answer: if the answer is lost, only the same token with the same key
// gets the certificate again. So the key must be on disk before the token is sent. The name
// of its file has the SHA-256 of the token, which does not reveal the token.
type pendingKeys struct {
	dir   string // "" for memory only
	token string // name of the file of key
	key   crypto.Signer
	fresh bool // no request with key was sent before
}

const pendingPrefix = "pending-"

// keyFor returns the key to use with token. It makes a key only for a new token. If the
// file of the key cannot be read, that is an error: with another key the token would be
// spent for nothing.
func (p *pendingKeys) keyFor(token secret.String, kind KeyType) (crypto.Signer, error) {
	sum := sha256.Sum256([]byte(token.Expose()))
	name := pendingPrefix + hex.EncodeToString(sum[:16]) + ".key"
	if p.key != nil && p.token == name {
		return p.key, nil
	}
	key, err := p.load(name)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh {
		key, err = p.create(name, kind)
	}
	if err != nil {
		return nil, err
	}
	p.token, p.key, p.fresh = name, key, fresh
	return key, nil
}

// onAnswer is called with the outcome of a request with the key. If the first request is
// refused, this key can get no certificate, and is dropped. If a later one is refused, the
// key stays: the answer to an earlier one may have been lost.
func (p *pendingKeys) onAnswer(outcome error) error {
	denial, ok := errors.AsType[*Error](outcome)
	drop := p.fresh && ok && denial.refusesCaller()
	p.fresh = false
	if !drop {
		return nil
	}
	name := p.token
	p.token, p.key = "", nil
	if p.dir == "" {
		return nil
	}
	if err := os.Remove(filepath.Join(p.dir, name)); err != nil {
		return fmt.Errorf("removing the key of a refused enrolment: %w", err)
	}
	return nil
}

func (p *pendingKeys) load(name string) (crypto.Signer, error) {
	if p.dir == "" {
		return nil, fs.ErrNotExist
	}
	data, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		return nil, fmt.Errorf("reading the key of an unfinished enrolment: %w", err)
	}
	key, err := pemfile.PrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("reading the key of an unfinished enrolment: %s: %w", filepath.Join(p.dir, name), err)
	}
	return key, nil
}

// create makes and stores a key. It is synced before create returns, and the caller sends
// the token after that; a crash in between leaves an unused key.
func (p *pendingKeys) create(name string, kind KeyType) (crypto.Signer, error) {
	key, err := kind.generate()
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	if p.dir == "" {
		return key, nil
	}
	data, err := pemfile.EncodePrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := durable.MkdirAll(p.dir); err != nil {
		return nil, fmt.Errorf("storing the key of an enrolment: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(p.dir, name), data, durable.Private); err != nil {
		return nil, fmt.Errorf("storing the key of an enrolment: %w", err)
	}
	return key, nil
}

// forget removes the keys of all unfinished enrolments, once a certificate is stored. A
// crash before that leaves the file of a key, which is the stored key too; the next success
// removes it.
func (p *pendingKeys) forget() error {
	p.token, p.key = "", nil
	if p.dir == "" {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(escapeGlob(p.dir), pendingPrefix+"*.key"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the key of a finished enrolment: %w", err)
		}
	}
	return nil
}

// escapeGlob makes a path literal for filepath.Glob.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
