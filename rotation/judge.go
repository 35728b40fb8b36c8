package rotation

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// noEnd stands for the end of what has none: a hundred years.
const noEnd = 100 * 365 * 24 * time.Hour

// peer is what is known of the other end of a connection.
type peer struct {
	tls  tls.ConnectionState
	ends time.Time // when it should connect anew whatever else changes, and
	why  string
}

// peer of a connection that was accepted at since, zero if not known. A client
// without a certificate, where that is allowed, has no end but MaxAge.
func (s *Server) peer(cs tls.ConnectionState, since time.Time) peer {
	p := peer{tls: cs, ends: chainsEnd(cs.VerifiedChains), why: "the peer's certificate has expired"}
	if len(cs.VerifiedChains) == 0 {
		p.ends = time.Now().Add(noEnd)
	}
	if s.opts.MaxAge > 0 && !since.IsZero() && since.Add(s.opts.MaxAge).Before(p.ends) {
		p.ends, p.why = since.Add(s.opts.MaxAge), "the connection has reached its age"
	}
	return p
}

// standard is what a verdict depends on besides the time.
type standard struct {
	gen    *Generation
	policy string
}

func (s *Server) standard() standard { return standard{s.id.Current(), s.policy()} }

// verdict is what is wrong with a connection; both nil is nothing.
type verdict struct {
	cut   error // the peer must not go on
	drain error // the peer should connect anew
}

// judge asks whether a peer would be admitted now. It does not count on the
// chain as it was verified: that may end at a root that is trusted no more.
func (s *Server) judge(g *Generation, p peer, now time.Time) verdict {
	if err := s.admit(g, p.tls); err != nil {
		return verdict{cut: err}
	}
	switch {
	case !now.Before(p.ends):
		return verdict{drain: errors.New(p.why)}
	case len(p.tls.PeerCertificates) == 0 || slices.ContainsFunc(p.tls.VerifiedChains, func(chain []*x509.Certificate) bool { return g.carries(chain, now) }):
		return verdict{}
	}
	if err := g.verifyPeer(p.tls.PeerCertificates, now); err != nil {
		return verdict{drain: fmt.Errorf("the peer's certificate verifies no more: %w", err)}
	}
	return verdict{}
}

// verdict is judge for a request. A connection that was judged by the same
// standard, and has not come to its end since, costs nothing.
func (s *Server) verdict(r *http.Request) verdict {
	now, std := time.Now(), s.standard()
	c, ok := r.Context().Value(connKey{}).(*servedConn)
	switch {
	case !ok:
		return s.judge(std.gen, s.peer(*r.TLS, time.Time{}), now)
	case c.fine(std, now):
		return verdict{}
	}
	v := s.judge(std.gen, c.peer, now)
	if v.cut == nil { // else the answer closes the connection
		c.judged(std, v, now) // the grace begins with whoever notices first
	}
	return v
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

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// carries reports whether a chain that was verified once needs no second look:
// its root is in the bundle, and all of it is still valid.
func (g *Generation) carries(chain []*x509.Certificate, now time.Time) bool {
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
