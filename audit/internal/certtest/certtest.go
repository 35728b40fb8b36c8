// Package certtest makes the certificates, keys and files that the tests of package
// audit and of its rooms look at.
//
//	root, intermediate, leaf := certtest.Hierarchy(t, certtest.Lives(time.Hour, certtest.Day))
//	dir := certtest.Write(t, map[string][]byte{
//		"tls.crt": certtest.Encode(leaf, intermediate), "tls.key": leaf.KeyPEM(t), "ca.crt": certtest.Encode(root),
//	})
//
// It stands on internal/testpki and adds what only audits ask for: certificates that
// crypto/x509 refuses, and certificates as package cert has read them.
package certtest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/testpki"
)

// Day is what most texts of an audit count in.
const Day = 24 * time.Hour

// Doomsday returns the moment at which all golden reports are judged.
func Doomsday() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// NegativeSerial returns the certificate in DER with a negative serial number.
// RFC 5280 §4.1.2.2 forbids it and crypto/x509 refuses it, but other programs accept
// it. The certificate must have been made with [OddSerial].
func NegativeSerial(t testing.TB, p *Pair) []byte {
	t.Helper()
	der := bytes.Clone(p.Cert.Raw)
	serial := p.Cert.SerialNumber.Bytes()
	i := bytes.Index(der, serial)
	if i < 0 || serial[0]&0x80 != 0 {
		t.Fatal("no serial number that can be turned")
	}
	der[i] |= 0x80
	if _, err := x509.ParseCertificate(der); err == nil {
		t.Fatal("crypto/x509 takes it")
	}
	return der
}

// OddSerial sets a serial number whose sign bit [NegativeSerial] can set.
func OddSerial(c *x509.Certificate) { c.SerialNumber = big.NewInt(0x0102030405060708) }

// Pair is a certificate with its key, and the pair of its issuer, nil if it is self-signed.
type Pair struct {
	Cert   *x509.Certificate
	Key    *ecdsa.PrivateKey
	Issuer *Pair
}

// Spec changes the template of a certificate.
type Spec func(*x509.Certificate)

// Dates sets notBefore and notAfter.
func Dates(from, to time.Time) Spec {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = from, to }
}

// Lives sets the dates of a certificate that was issued some time ago and is valid for
// life from then on.
func Lives(ago, life time.Duration) Spec {
	now := time.Now().Truncate(time.Second)
	return Dates(now.Add(-ago), now.Add(life-ago))
}

// Holds sets another public key than that of the pair.
func Holds(pub crypto.PublicKey) Spec { return func(c *x509.Certificate) { c.PublicKey = pub } }

// Named sets the DNS names, and removes the addresses.
func Named(names ...string) Spec {
	return func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = names, nil }
}

// New issues a certificate for a server and client named cn. It began one hour ago and
// ends in a year, unless a spec says otherwise. Without an issuer it is self-signed.
func New(t testing.TB, issuer *Pair, cn string, specs ...Spec) *Pair {
	t.Helper()
	key := testpki.Key(t)
	tpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: cn}, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour).Truncate(time.Second), NotAfter: time.Now().Add(365 * 24 * time.Hour).Truncate(time.Second),
		DNSNames: []string{cn, "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, s := range specs {
		s(tpl)
	}
	var by *testpki.Pair
	if issuer != nil {
		by = &testpki.Pair{Cert: issuer.Cert, Key: issuer.Key}
	}
	return &Pair{Cert: testpki.Issue(t, by, tpl, key).Cert, Key: key, Issuer: issuer}
}

// Authority is the spec of a certificate authority whose certificate ends in ten years.
func Authority(c *x509.Certificate) {
	c.IsCA, c.KeyUsage, c.DNSNames, c.IPAddresses, c.ExtKeyUsage = true, x509.KeyUsageCertSign, nil, nil, nil
	c.NotAfter = time.Now().Add(10 * 365 * 24 * time.Hour).Truncate(time.Second)
}

// Hierarchy returns a root, an intermediate and a leaf. The specs are for the leaf.
func Hierarchy(t testing.TB, specs ...Spec) (root, intermediate, leaf *Pair) {
	t.Helper()
	root = New(t, nil, "Test Root", Authority)
	intermediate = New(t, root, "Test Intermediate", Authority)
	return root, intermediate, New(t, intermediate, "ingester", specs...)
}

// Encode returns the certificates in PEM (RFC 7468 §5).
func Encode(certs ...*Pair) (out []byte) {
	for _, p := range certs {
		out = append(out, pemfile.EncodeCertificates([]*x509.Certificate{p.Cert})...)
	}
	return out
}

// KeyPEM returns the private key in PEM.
func (p *Pair) KeyPEM(t testing.TB) []byte {
	t.Helper()
	b, err := pemfile.EncodePrivateKey(p.Key)
	Must(t, err)
	return b
}

// TLS returns what a server presents: the certificate and the chain behind it.
func (p *Pair) TLS(chain ...*Pair) tls.Certificate {
	c := tls.Certificate{Certificate: [][]byte{p.Cert.Raw}, PrivateKey: p.Key}
	for _, i := range chain {
		c.Certificate = append(c.Certificate, i.Cert.Raw)
	}
	return c
}

// Must fails the test if err is not nil.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Write writes files, with mode 0600, into a new directory and returns that. A name
// may have directories in it.
func Write(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		path := filepath.Join(dir, name)
		Must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		Must(t, os.WriteFile(path, data, 0o600)) //nolint:forbidigo // a file of a test need not survive a crash
	}
	return dir
}

// Seen returns the certificate as package cert reads it.
func Seen(c *x509.Certificate) *cert.Certificate { return cert.FromX509(c) }

// SeenAll returns the certificates of several pairs as package cert reads them.
func SeenAll(pairs []*Pair) (out []*cert.Certificate) {
	for _, p := range pairs {
		out = append(out, Seen(p.Cert))
	}
	return out
}

// Block returns one block of PEM.
func Block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// Bundle returns the certificates of several pairs, for a trust bundle.
func Bundle(pairs []*Pair) (out []*x509.Certificate) {
	for _, p := range pairs {
		out = append(out, p.Cert)
	}
	return out
}
