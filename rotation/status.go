package rotation

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/errtext"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/rotation/status"
)

// Status reports the state of the identity.
func (id *Identity) Status() status.Identity {
	g, now := id.Current(), time.Now()
	leaf := g.Leaf()
	reason, overdue := lifetime.Overdue(leaf.NotBefore, leaf.NotAfter, now)
	st := status.Identity{
		Generation: g.number, Version: g.version, Serial: certs.Serial(leaf), Fingerprint: certs.Fingerprint(leaf),
		NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, PublishedAt: g.published,
		Roots: len(g.roots), TrustDigest: g.trust, OwnTrusted: g.untrusted == nil, Overdue: overdue, Reason: reason,
	}
	if r, ok := id.source.(renewer); ok {
		st.NextRenewal = r.NextRenewal()
	}
	st.Connections, st.RefusedPeers = id.connections(), id.refusedPeers()
	id.mu.Lock()
	defer id.mu.Unlock()
	h := id.health
	st.WatchMode, st.WatchError = h.mode, errtext.Of(h.modeErr)
	st.LastSuccess, st.LastError, st.Failures, st.Refused = h.success, errtext.Of(h.err), h.failures, h.refused
	st.RevokedLists, st.RevokedSerials, st.RevokedKept = len(id.lists.lists), id.lists.named.Len(), id.lists.kept.Len()
	st.RevokedAt, st.RevokedStale = id.lists.oldest(), id.lists.stale(now) != nil
	st.Drained, st.Forced = id.drained.Load(), id.forced.Load()
	st.Others, st.Warnings = otherStatus(g, h.others, now), slices.Clone(h.warnings)
	if id.held != nil {
		st.HeldUntil = id.held.gen.from()
	}
	st.Draining = len(id.retiring)
	return st
}

// lister is a source that fetches revocation lists, and says why that failed last.
type lister interface{ RevokedError() error }

// renewer is a source that knows when it will renew its certificate.
type renewer interface{ NextRenewal() time.Time }

// connections counts open connections, by generation and the oldest first.
func (id *Identity) connections() []status.Connections {
	count := map[uint64]status.Connections{}
	for _, n := range id.liveGenerations() {
		c := count[n.gen.number]
		c.Client = len(n.connections())
		count[n.gen.number] = c
	}
	id.mu.Lock()
	servers := slices.Clone(id.serving)
	id.mu.Unlock()
	for _, s := range servers {
		for _, conn := range s.conns.all() {
			c := count[conn.opened]
			c.Server++
			count[conn.opened] = c
		}
	}
	var out []status.Connections
	for _, number := range slices.Sorted(maps.Keys(count)) {
		if c := count[number]; c.Client+c.Server > 0 {
			c.Generation = number
			out = append(out, c)
		}
	}
	return out
}

// Check is for readiness probes. It fails if peers would refuse the certificate in effect,
// and after Close. It also fails if a revocation list is past its nextUpdate (RFC 5280
// §5.1.2.5): from then on revoked peers may be admitted. It does not fail because the
// source fails, as the identity is good until it expires; see LastError and Overdue of
// [Identity.Status].
func (id *Identity) Check() error {
	g, now := id.Current(), time.Now()
	switch {
	case id.ctx.Err() != nil:
		return fmt.Errorf("checking identity: %w", ErrClosed)
	case g.expired(now):
		return fmt.Errorf("checking identity: the certificate expired at %s", g.until().UTC().Format(time.RFC3339))
	case now.Before(g.from()):
		return fmt.Errorf("checking identity: the certificate is not valid before %s", g.from().UTC().Format(time.RFC3339))
	}
	id.mu.Lock()
	err := id.lists.stale(now)
	id.mu.Unlock()
	if err == nil {
		return nil
	}
	if l, ok := id.source.(lister); ok && l.RevokedError() != nil {
		err = fmt.Errorf("%w: %w", err, l.RevokedError())
	}
	return fmt.Errorf("checking identity: %w", err)
}
