package ingesttest

import (
	"context"
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

	"github.com/artstore/artstore-pki/rotation"
)

const (
	backdate = time.Minute
	leafLife = time.Hour
	rootLife = 24 * time.Hour
)

// CA is a throwaway authority in memory. It issues whatever it is asked for,
// which is why it must not leave a test.
type CA struct {
	root *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes a root that lives a day.
func NewCA(t testing.TB) *CA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "throwaway root"},
		NotBefore: time.Now().Add(-backdate), NotAfter: time.Now().Add(rootLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	ca := &CA{root: tmpl, key: key} // signs itself
	ca.root = ca.sign(t, tmpl, key)
	return ca
}

// Root is the only certificate of the trust bundle.
func (ca *CA) Root() *x509.Certificate { return ca.root }

// Material is a new leaf for a client and server of this name on loopback, good
// for an hour, with its key and the trust bundle.
func (ca *CA) Material(t testing.TB, name string) rotation.Material {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: name},
		DNSNames: []string{name, "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore: time.Now().Add(-backdate), NotAfter: time.Now().Add(leafLife),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	leaf := ca.sign(t, tmpl, key)
	return rotation.Material{
		Certificate: tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf},
		Roots:       []*x509.Certificate{ca.root},
		Version:     leaf.SerialNumber.String(),
	}
}

func (ca *CA) sign(t testing.TB, tmpl *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.root, key.Public(), ca.key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert
}

// serial is random, as RFC 5280 wants it: rotation tells certificates apart by it.
func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	must(t, err)
	return n.Add(n, big.NewInt(1))
}

// source publishes what a test pushes into it.
type source struct {
	first rotation.Material
	push  chan pushed
}

type pushed struct {
	material rotation.Material
	verdict  chan error
}

func (s *source) starting(m rotation.Material) *source {
	s.first = m
	return s
}

// Watch implements [rotation.Source].
func (s *source) Watch(ctx context.Context, yield func(rotation.Material) error) error {
	if err := yield(s.first); err != nil {
		return err
	}
	for {
		select {
		case p := <-s.push:
			p.verdict <- yield(p.material)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// replace returns the identity's verdict on m.
func (s *source) replace(ctx context.Context, m rotation.Material) error {
	p := pushed{material: m, verdict: make(chan error, 1)}
	select {
	case s.push <- p:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-p.verdict:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
