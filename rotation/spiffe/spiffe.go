// Package spiffe makes an identity of package rotation a source of go-spiffe ([NewSource]),
// and a source of go-spiffe a source of package rotation ([Follow]). It does not link gRPC.
//
//	src := spiffe.NewSource(id)
//	svid, err := src.GetX509SVID()                    // x509svid.Source
//	conf := tlsconfig.MTLSServerConfig(src, src, tlsconfig.AuthorizeMemberOf(td))
//	conf.SessionTicketsDisabled = true
//
// Invariants:
//
//   - A [Source] returns the generation in effect, and one call never mixes two
//     generations (TestSourceFollowsGenerations).
//   - A leaf that is no X509-SVID gives an error that names the rule
//     (TestSourceRefusesWhatIsNoSVID).
//   - Nothing of gRPC is linked (TestImportersPayNoGRPC).
//
// # Rules for callers
//
// An identity has one trust bundle for all peers, SPIFFE has one for each trust domain. A
// Source returns the whole bundle for the trust domain of its own SPIFFE ID, and nothing
// for others. If the bundle has a root of a partner, that partner can issue IDs of our
// trust domain: keep such roots out.
//
// tlsconfig of go-spiffe judges peers in VerifyPeerCertificate, which crypto/tls does not
// call for a resumed session. So a peer whose root was removed could resume as long
// as its ticket lives. Set SessionTicketsDisabled on servers and leave ClientSessionCache
// nil on clients, or use [rotation.Identity.ServerTLSConfig], which has neither problem.
package spiffe

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/artstore/artstore-pki/rotation"
)

var (
	_ x509svid.Source   = (*Source)(nil)
	_ x509bundle.Source = (*Source)(nil)
)

// Source is an identity as [x509svid.Source] and [x509bundle.Source]. It is safe for
// concurrent use. It starts no goroutine and needs no Close: after Close of the identity
// it stays at the last generation.
type Source struct {
	id   *rotation.Identity
	last atomic.Pointer[converted]
}

// converted is one generation in the types of go-spiffe, or why it cannot be that.
type converted struct {
	gen    *rotation.Generation
	svid   *x509svid.SVID
	bundle *x509bundle.Bundle
	err    error
}

// NewSource returns a source for id. It does not fail if the leaf is no X509-SVID, because
// the next one may be.
func NewSource(id *rotation.Identity) *Source { return &Source{id: id} }

// GetX509SVID implements [x509svid.Source]. All callers get the same value and must not
// change it. Its key may be in hardware.
func (s *Source) GetX509SVID() (*x509svid.SVID, error) {
	c := s.current()
	return c.svid, c.err
}

// GetX509BundleForTrustDomain implements [x509bundle.Source] for the trust domain of the
// own SPIFFE ID. All callers get the same value and must not change it.
func (s *Source) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	c := s.current()
	if c.err != nil {
		return nil, c.err
	}
	if own := c.bundle.TrustDomain(); td != own {
		return nil, fmt.Errorf("finding the trust bundle of %q: only the one of %q is known", td, own)
	}
	return c.bundle, nil
}

// current returns the converted generation in effect. Callers at the same time may each
// convert it; if one of them stores an older generation, the next call converts again.
func (s *Source) current() *converted {
	g := s.id.Current()
	if c := s.last.Load(); c != nil && c.gen == g {
		return c
	}
	c := convert(g)
	s.last.Store(c)
	return c
}

func convert(g *rotation.Generation) *converted {
	leaf := g.Leaf()
	id, err := LeafID(leaf)
	if err != nil {
		return &converted{gen: g, err: fmt.Errorf("converting certificate %s to an X509-SVID: %w", g.Thumbprint(), err)}
	}
	key, ok := g.Certificate().PrivateKey.(crypto.Signer)
	if !ok { // cannot happen: the gate of rotation refuses such a key
		return &converted{gen: g, err: fmt.Errorf("converting certificate %s to an X509-SVID: its key cannot sign", g.Thumbprint())}
	}
	return &converted{
		gen:    g,
		svid:   &x509svid.SVID{ID: id, Certificates: g.Chain(), PrivateKey: key},
		bundle: x509bundle.FromX509Authorities(id.TrustDomain(), g.Roots()),
	}
}

// LeafID returns the SPIFFE ID of a leaf, or which rule of the X509-SVID standard the leaf
// breaks. It applies the rules that the gate of rotation does not apply. go-spiffe checks
// them only where it parses an encoded private key, which a key in hardware is not.
func LeafID(leaf *x509.Certificate) (spiffeid.ID, error) {
	id, err := x509svid.IDFromCert(leaf) // §2: exactly one URI, a SPIFFE ID
	switch {
	case err != nil:
		return spiffeid.ID{}, err
	case id.Path() == "": // §3.1
		return spiffeid.ID{}, errors.New("the SPIFFE ID of a leaf must have a path")
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0: // §4.3
		return spiffeid.ID{}, errors.New("key usage lacks digitalSignature")
	case leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0: // §4.3
		return spiffeid.ID{}, errors.New("key usage of a leaf must not hold keyCertSign or cRLSign")
	}
	return id, nil
}
