// Package pkitest makes identities in memory for the tests of packages that
// build on rotation. Only tests import it.
//
//	ca := pkitest.NewCA(t)
//	src := pkitest.NewSource(ca.Leaf(t, "storage"))
//	id := pkitest.Open(t, rotation.Config{Source: src})
//	src.Push(t, ca.Leaf(t, "storage")) // returns when the new generation is in effect
//
// The certificates come from internal/testpki. Package ca/catest has a whole authority.
package pkitest

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"log/slog"
	"testing"

	"github.com/artstore/artstore-pki/internal/testpki"
	"github.com/artstore/artstore-pki/rotation"
)

// CA is a root that signs leaves itself; its key is open, for lists of revoked ones.
type CA struct {
	Root *x509.Certificate
	Key  crypto.Signer
}

// NewCA makes a root of ten years.
func NewCA(t testing.TB) *CA {
	t.Helper()
	root := testpki.Root(t, "pkitest "+rand.Text())
	return &CA{Root: root.Cert, Key: root.Key}
}

// Leaf makes an identity of one hour with a new key: for the DNS name,
// "localhost" and 127.0.0.1, as server and client, trusting this CA. Edits
// change the template first.
func (ca *CA) Leaf(t testing.TB, name string, edits ...func(*x509.Certificate)) rotation.Material {
	t.Helper()
	leaf := (&testpki.Pair{Cert: ca.Root, Key: ca.Key}).Leaf(t, name, edits...)
	return rotation.Material{Certificate: leaf.TLS(), Roots: []*x509.Certificate{ca.Root}, Version: leaf.Cert.SerialNumber.Text(16)}
}

// Source is a [rotation.Source] that yields the material that a test pushes. It is for one
// identity, which must be open while Push runs.
type Source struct{ next chan offer }

type offer struct {
	m      rotation.Material
	answer chan error
}

// NewSource returns a source that begins with m.
func NewSource(m rotation.Material) *Source {
	s := &Source{next: make(chan offer, 1)}
	s.next <- offer{m, make(chan error, 1)}
	return s
}

// Watch implements [rotation.Source]. Unlike others it cannot be started over.
func (s *Source) Watch(ctx context.Context, yield func(rotation.Material) error) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case o := <-s.next:
			o.answer <- yield(o.m)
		}
	}
}

// Offer yields m and returns what the gate says.
func (s *Source) Offer(m rotation.Material) error {
	o := offer{m, make(chan error, 1)}
	s.next <- o
	return <-o.answer
}

// Push is Offer of something that must be accepted.
func (s *Source) Push(t testing.TB, m rotation.Material) {
	t.Helper()
	if err := s.Offer(m); err != nil {
		t.Fatalf("pushing %s: %v", m.Version, err)
	}
}

// Open opens an identity without logs that closes with the test.
func Open(t testing.TB, cfg rotation.Config) *rotation.Identity {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	id, err := rotation.Open(context.WithoutCancel(t.Context()), cfg)
	if err != nil {
		t.Fatalf("opening identity: %v", err)
	}
	t.Cleanup(func() { _ = id.Close() }) // returns nil
	return id
}

// Example returns a T for an Example function, which has none. Failures panic.
func Example() testing.TB { return example{} }

type example struct{ testing.TB }

func (example) Helper()                           {}
func (example) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
