// Package testpki makes keys, certificates and revocation lists for tests.
//
//	root := testpki.Root(t, "root")
//	leaf := root.Leaf(t, "storage", func(c *x509.Certificate) { c.NotAfter = time.Now() })
//	list := root.List(t, &x509.RevocationList{Number: big.NewInt(1)})
//
// It knows crypto/x509 only, so that the tests of every package can use it; what
// makes identities of them is internal/pkitest. Times are counted from time.Now,
// so that certificates follow the clock of a synctest bubble.
package testpki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"
)

// Pair is a certificate with its private key.
type Pair struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// Key makes an ECDSA key on P-256, which costs next to nothing.
func Key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("making a key: %v", err)
	}
	return key
}

// Issue signs the template with the issuer, or with its own key if issuer is nil.
// A template without a serial number, a begin or an end gets a random serial of
// 127 bits, one hour ago, and an hour from now. A nil key is a new one of [Key].
// The certificate is for template.PublicKey where that is set, and does not fit
// the key of the pair then.
func Issue(t testing.TB, issuer *Pair, template *x509.Certificate, key crypto.Signer) *Pair {
	t.Helper()
	if key == nil {
		key = Key(t)
	}
	if template.SerialNumber == nil {
		template.SerialNumber = serial(t)
	}
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	if issuer == nil {
		issuer = &Pair{Cert: template, Key: key}
	}
	public := template.PublicKey
	if public == nil {
		public = key.Public()
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.Cert, public, issuer.Key)
	if err != nil {
		t.Fatalf("making a certificate: %v", err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("reading a certificate back: %v", err)
	}
	return &Pair{Cert: c, Key: key}
}

// serial is random, as RFC 5280 §4.1.2.2 asks for: the code under test tells
// certificates apart by it. It is never 0, which crypto/x509 refuses.
func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		t.Fatalf("making a serial number: %v", err)
	}
	return n.Add(n, big.NewInt(1))
}

// Root makes a self-signed authority of ten years. Edits change the template
// first, here and below.
func Root(t testing.TB, name string, edits ...func(*x509.Certificate)) *Pair {
	t.Helper()
	return Issue(t, nil, edited(authority(name), edits), nil)
}

// Intermediate makes an authority of ten years that p has signed.
func (p *Pair) Intermediate(t testing.TB, name string, edits ...func(*x509.Certificate)) *Pair {
	t.Helper()
	return Issue(t, p, edited(authority(name), edits), nil)
}

// Leaf makes a certificate of one hour that p has signed: for the DNS name,
// "localhost" and 127.0.0.1, as server and as client.
func (p *Pair) Leaf(t testing.TB, name string, edits ...func(*x509.Certificate)) *Pair {
	t.Helper()
	return Issue(t, p, edited(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name, "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   time.Now().Add(-time.Minute),
	}, edits), nil)
}

func authority(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotAfter: time.Now().AddDate(10, 0, 0),
	}
}

func edited(template *x509.Certificate, edits []func(*x509.Certificate)) *x509.Certificate {
	for _, edit := range edits {
		edit(template)
	}
	return template
}

// List signs a revocation list with p.
func (p *Pair) List(t testing.TB, template *x509.RevocationList) *x509.RevocationList {
	t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, template, p.Cert, p.Key)
	if err != nil {
		t.Fatalf("making a revocation list: %v", err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatalf("reading a revocation list back: %v", err)
	}
	return list
}

// TLS is the pair as crypto/tls shows it, with issuers behind the certificate.
func (p *Pair) TLS(issuers ...*Pair) tls.Certificate {
	c := tls.Certificate{Certificate: [][]byte{p.Cert.Raw}, PrivateKey: p.Key, Leaf: p.Cert}
	for _, i := range issuers {
		c.Certificate = append(c.Certificate, i.Cert.Raw)
	}
	return c
}
