// Package spiffe shows an identity of package rotation to go-spiffe, and the
// other way round. It does not link gRPC: a service that takes its certificate
// from files or from the authority pays for three small packages.
//
//	src := spiffe.NewSource(id)
//	svid, err := src.GetX509SVID()                    // x509svid.Source
//	conf := tlsconfig.MTLSServerConfig(src, src, tlsconfig.AuthorizeMemberOf(td))
//	conf.SessionTicketsDisabled = true
//
// # Promises
//
// What [Source] returns is the generation in effect, converted once per
// generation; SVID and bundle of one generation are published together, so two
// calls may see two generations and one call never sees a mix. The SPIFFE ID is
// the only URI name of the leaf. A leaf that is no X509-SVID gives an error that
// names the rule; with the next generation the answer is new.
//
// # Rules for callers
//
// The trust bundle of an identity is one list for all peers, SPIFFE's is one
// per trust domain. The source answers for the trust domain of its own SPIFFE
// ID with the whole list and for no other. So a bundle that also holds roots of
// partners lets these partners speak for our trust domain: keep such roots out.
//
// tlsconfig judges peers in VerifyPeerCertificate, which crypto/tls skips when
// a session is resumed: a removed root or a denied ID would stay in as long as
// its ticket lives. Set SessionTicketsDisabled on servers and leave
// ClientSessionCache nil on clients, or use [rotation.Identity.ServerTLSConfig],
// which has neither problem.
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

// Source is an identity as [x509svid.Source] and [x509bundle.Source]. It is
// safe for concurrent use, starts nothing, and needs no Close: it stays at the
// last generation when the identity is closed.
type Source struct {
	id   *rotation.Identity
	last atomic.Pointer[converted]
}

// converted is one generation as SPIFFE knows it, or why it is none.
type converted struct {
	gen    *rotation.Generation
	svid   *x509svid.SVID
	bundle *x509bundle.Bundle
	err    error
}

// NewSource returns the view of id. It does not fail when the leaf is no
// X509-SVID, because the next one may be.
func NewSource(id *rotation.Identity) *Source { return &Source{id: id} }

// GetX509SVID implements [x509svid.Source]. The answer is shared by all
// callers, who must not change it; its key may live in hardware.
func (s *Source) GetX509SVID() (*x509svid.SVID, error) {
	c := s.current()
	return c.svid, c.err
}

// GetX509BundleForTrustDomain implements [x509bundle.Source] for the trust
// domain of the own SPIFFE ID. The answer is shared by all callers, who must
// not change it.
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

// current converts at most a few times per generation: callers that race do
// the same work, and one that stores an older result is found out by the next.
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
	id, err := identify(leaf)
	if err != nil {
		return &converted{gen: g, err: fmt.Errorf("converting certificate %s to an X509-SVID: %w", g.Thumbprint(), err)}
	}
	key, ok := g.Certificate().PrivateKey.(crypto.Signer)
	if !ok { // the gate of rotation publishes no such thing
		return &converted{gen: g, err: fmt.Errorf("converting certificate %s to an X509-SVID: its key cannot sign", g.Thumbprint())}
	}
	return &converted{
		gen:    g,
		svid:   &x509svid.SVID{ID: id, Certificates: g.Chain(), PrivateKey: key},
		bundle: x509bundle.FromX509Authorities(id.TrustDomain(), g.Roots()),
	}
}

// identify applies the rules of the X509-SVID standard to a leaf, those that
// the gate of rotation does not apply to every leaf. go-spiffe has them behind
// a parser of encoded private keys only, which a key in hardware does not pass.
func identify(leaf *x509.Certificate) (spiffeid.ID, error) {
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
