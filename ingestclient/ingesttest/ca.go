package ingesttest

import (
	"context"
	"crypto/x509"
	"net"
	"testing"

	"github.com/artstore/artstore-pki/internal/testpki"
	"github.com/artstore/artstore-pki/rotation"
)

// CA is a throwaway authority in memory. It issues every certificate that a test wants,
// so it must not be used outside of tests.
type CA struct{ root *testpki.Pair }

// NewCA makes a root.
func NewCA(t testing.TB) *CA {
	t.Helper()
	return &CA{testpki.Root(t, "throwaway root")}
}

// Root is the only certificate of the trust bundle.
func (ca *CA) Root() *x509.Certificate { return ca.root.Cert }

// Material is a new leaf for a client and server of this name on loopback, good
// for an hour, with its key and the trust bundle.
func (ca *CA) Material(t testing.TB, name string) rotation.Material {
	t.Helper()
	leaf := ca.root.Leaf(t, name, func(c *x509.Certificate) { c.IPAddresses = append(c.IPAddresses, net.IPv6loopback) })
	return rotation.Material{
		Certificate: leaf.TLS(), Roots: []*x509.Certificate{ca.root.Cert}, Version: leaf.Cert.SerialNumber.String(),
	}
}

// source publishes what a test pushes into it.
type source struct {
	first rotation.Material
	push  chan pushed
}

type pushed struct {
	material rotation.Material
	answer   chan error
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
			p.answer <- yield(p.material)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// replace proposes m, and returns what the gate says.
func (s *source) replace(ctx context.Context, m rotation.Material) error {
	p := pushed{material: m, answer: make(chan error, 1)}
	select {
	case s.push <- p:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-p.answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
