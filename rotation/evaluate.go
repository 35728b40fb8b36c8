package rotation

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/internal/panics"
)

// noEnd stands for the end of what has none: a hundred years.
const noEnd = 100 * 365 * 24 * time.Hour

// peerState is what is known of the other end of a connection.
type peerState struct {
	tls  tls.ConnectionState
	ends time.Time // when it should connect anew whatever else changes, and
	why  error
}

// newPeerState of a connection that was accepted at since, zero if not known. A client
// without a certificate, where that is allowed, has no end but MaxAge.
func (s *Server) newPeerState(cs tls.ConnectionState, since time.Time) peerState {
	p := peerState{tls: cs, ends: chainsEnd(cs.VerifiedChains), why: errPeerExpired}
	if len(cs.VerifiedChains) == 0 {
		p.ends = time.Now().Add(noEnd)
	}
	if s.opts.MaxAge > 0 && !since.IsZero() && since.Add(s.opts.MaxAge).Before(p.ends) {
		p.ends, p.why = since.Add(s.opts.MaxAge), errTooOld
	}
	return p
}

// decision is what is wrong with a connection; both nil is nothing.
type decision struct {
	cut   error // the peer must not go on
	drain error // the peer should connect anew
}

// evaluate asks whether the certificate of a peer would be accepted now. It does not
// count on the chain as it was verified: that may end at a root that is trusted
// no more. It does not ask Authorize.
func (g *Generation) evaluate(p peerState, now time.Time) decision {
	anonymous := len(p.tls.PeerCertificates) == 0 // Server.authorize knows whether that is allowed
	if err := g.checkRevoked(p.tls.VerifiedChains); err != nil && !anonymous {
		return decision{cut: err}
	}
	switch {
	case !now.Before(p.ends):
		return decision{drain: p.why}
	case anonymous || slices.ContainsFunc(p.tls.VerifiedChains, func(chain []*x509.Certificate) bool { return g.stillVerifies(chain, now) }):
		return decision{}
	}
	if err := g.verifyPeer(p.tls.PeerCertificates, now); err != nil {
		return decision{drain: fmt.Errorf("the peer's certificate verifies no more: %w", err)}
	}
	return decision{}
}

// authorize asks the Authorizer, whose answer may differ at each call: nothing
// tells us when its rules change, so its answers are not kept. No lock may be
// held here. A panic is a refusal: it must neither admit the peer nor end the process.
func (s *Server) authorize(cs tls.ConnectionState) (err error) {
	if s.opts.ClientCertOptional && len(cs.PeerCertificates) == 0 {
		return nil
	}
	if err := verified(cs); err != nil { // of a connection that was accepted by another configuration
		return err
	}
	defer panics.Catch(func(p *panics.Error) {
		if n := s.id.panics.Pass(time.Now()); n > 0 { // a peer may be able to cause it
			s.id.log.Error("Authorize panicked", "panic", fmt.Sprint(p.Value), "stack", p.Stack, "count", n)
		}
		err = deniedError{fmt.Errorf("%w: Authorize panicked", ErrPeerDenied)}
	})
	if err := s.opts.Authorize(cs); err != nil {
		return deniedError{err}
	}
	return nil
}

// Authorize reports whether the peer of an open connection would be admitted
// now: nil, or why not. It asks the same as [Server.Handler] does for each
// request: the revocation lists in effect and ServerOptions.Authorize. For
// protocols other than net/http, whose servers call it before each request. A
// refusal counts as a request in RefusedPeers of [Identity.Status].
func (s *Server) Authorize(cs tls.ConnectionState) error {
	err := s.id.Current().evaluate(s.newPeerState(cs, time.Time{}), time.Now()).cut
	if err == nil {
		err = s.authorize(cs)
	}
	if err != nil {
		s.id.refuse(atRequest, "", err)
	}
	return err
}

// chainsEnd is the moment from which none of the chains is valid, zero if there is none.
func chainsEnd(chains [][]*x509.Certificate) (end time.Time) {
	for _, chain := range chains {
		first := chain[0].NotAfter
		for _, c := range chain[1:] {
			first = earlier(first, c.NotAfter)
		}
		if end.Before(first) {
			end = first
		}
	}
	return end
}

// stillVerifies reports whether a chain that was verified once needs no second look:
// its root is in the bundle, and all of it is still valid.
func (g *Generation) stillVerifies(chain []*x509.Certificate, now time.Time) bool {
	return slices.ContainsFunc(g.roots, chain[len(chain)-1].Equal) &&
		!slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return !now.Before(c.NotAfter) })
}

// verifyPeer verifies a client's chain to the bundle, as crypto/tls does.
func (g *Generation) verifyPeer(peer []*x509.Certificate, now time.Time) error {
	_, err := verify(peer, x509.VerifyOptions{
		Roots: g.pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}
