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

// KeyType is a kind of key, spelled as in pki.yaml: EC-P256, EC-P384, Ed25519, RSA-3072
// or RSA-4096. RSA is for peers that know nothing else: a handshake costs many times more.
type KeyType string

// KeyTypes lists the kinds that there are; the first one is the default.
func KeyTypes() []KeyType { return slices.Clone(keyTypes) }

const (
	keyECP256  KeyType = "EC-P256"
	keyECP384  KeyType = "EC-P384"
	keyEd25519 KeyType = "Ed25519"
	keyRSA3072 KeyType = "RSA-3072"
	keyRSA4096 KeyType = "RSA-4096"
)

var keyTypes = []KeyType{keyECP256, keyECP384, keyEd25519, keyRSA3072, keyRSA4096}

// check accepts the zero value, too.
func (k KeyType) check() error {
	if k == "" || slices.Contains(keyTypes, k) {
		return nil
	}
	return fmt.Errorf("unknown key type %q: want one of %q", oneLine(string(k)), keyTypes)
}

// generate makes a key. P-256 is the default because a handshake with it costs
// a fraction of RSA's and, unlike Ed25519, every TLS library in use takes it.
func (k KeyType) generate() (crypto.Signer, error) {
	switch k {
	case keyECP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case keyEd25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case keyRSA3072:
		return rsa.GenerateKey(rand.Reader, 3072) // RFC 7525 successors and NIST SP 800-57: 128-bit strength
	case keyRSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// keyTypeOf is the kind of the successor of key: the same, or the next stronger
// one for a key that another program made.
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

// request makes the CSR (PEM) for a subject and its names. The subject is the
// common name only; who may connect is decided by the names (RFC 9525 §2).
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

// rekeyRequest asks for a successor of cert: same names, new key. The authority
// takes the names from the certificate in the handshake; they are repeated for
// step-ca, which compares them.
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

// pendingKeys remember which key a token was sent with. A one-time token is
// spent by the request, not by the answer: only the same token with the same
// key gets the certificate again when the answer was lost, so the key must be
// safe before the token leaves. Files are named after the token's SHA-256,
// which says nothing about it.
type pendingKeys struct {
	dir   string // empty: in memory only
	token string // name of key
	key   crypto.Signer
	fresh bool // no request with the key has left
}

const pendingPrefix = "pending-"

// keyFor returns the key to use with token, a new one only for a new token. A
// key file that cannot be read is an error, not a reason for another key: that
// would spend the token for nothing.
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

// onAnswer takes the outcome of a request with the key. If the authority refuses
// the first one, it has spent the token on another key or not at all, so this key
// can get nothing and is dropped. Later an earlier answer may have been lost.
func (p *pendingKeys) onAnswer(outcome error) error {
	denial, ok := errors.AsType[*Error](outcome)
	drop := p.fresh && ok && denial.isDenied()
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

// create makes and stores a key. The write is synced before it returns, and
// only then does the caller send the token: the order is the point.
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

// forget drops all unfinished enrolments, once a certificate is stored. A crash
// between the two leaves a key file behind that the next success removes; the
// key in it is also the stored one, so it gives away nothing more.
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
