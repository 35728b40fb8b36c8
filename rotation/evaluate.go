package rotation

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/internal/panics"
)

// noEnd is a hundred years. It is used as the life of a peer whose certificate cannot
// expire, because it has none.
const noEnd = 100 * 365 * 24 * time.Hour

// peerState is what is known of the peer of a connection.
type peerState struct {
	tls  tls.ConnectionState
	ends time.Time // when the peer should connect again, even if nothing else changes
	why  error     // the reason for it
}

// newPeerState returns the state of the peer of a connection that was accepted at since;
// zero if that is not known. A client without a certificate ends by MaxAge only.
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

// decision says what must be done with a connection. If both errors are nil, it stays.
type decision struct {
	cut   error // why the peer must not go on
	drain error // why the peer should connect again
}

// evaluate decides whether the certificate of a peer would be accepted now. The chain
// that was verified in the handshake may end at a root that is not trusted any more, so
// another one is looked for then. It does not ask Authorize.
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

// authorize asks the Authorizer. Its answers are not kept, because it does not say when
// its rules change. The caller holds no lock: an Authorizer may be slow. A panic is a
// refusal; it must neither admit the peer nor end the process.
func (s *Server) authorize(cs tls.ConnectionState) (err error) {
	if s.opts.ClientCertOptional && len(cs.PeerCertificates) == 0 {
		return nil
	}
	if err := verified(cs); err != nil { // the connection may have been accepted by another configuration
		return err
	}
	defer panics.Catch(func(p *panics.Error) {
		if n := s.id.panics.Pass(time.Now()); n > 0 { // limited, because a peer may be able to cause it
			s.id.log.Error("Authorize panicked", "panic", fmt.Sprint(p.Value), "stack", p.Stack, "count", n)
		}
		err = deniedError{fmt.Errorf("%w: Authorize panicked", ErrPeerDenied)}
	})
	if err := s.opts.Authorize(cs); err != nil {
		return deniedError{err}
	}
	return nil
}

// Authorize returns nil if the peer of an open connection would be admitted now, else why
// not. It checks what [Server.Handler] checks for each request: the revocation lists in
// effect and ServerOptions.Authorize. Servers of other protocols than HTTP call it before
// each request. A refusal counts in RefusedPeers of [Identity.Status].
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

// chainsEnd returns the moment from which none of the chains is valid, zero if there is
// no chain. A chain ends with the first of its certificates.
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

// stillVerifies reports whether a chain that was verified before is good now: its root is
// in the bundle, and none of its certificates has expired.
func (g *Generation) stillVerifies(chain []*x509.Certificate, now time.Time) bool {
	return slices.ContainsFunc(g.roots, chain[len(chain)-1].Equal) &&
		!slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return !now.Before(c.NotAfter) })
}

// verifyPeer verifies the chain of a client to the bundle, as crypto/tls does.
func (g *Generation) verifyPeer(peer []*x509.Certificate, now time.Time) error {
	_, err := verify(peer, x509.VerifyOptions{
		Roots: g.pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}
