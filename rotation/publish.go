package rotation

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/wallclock"
)

// propose is the yield of every source. It returns why the gate refused m, or nil if m
// is published, is unchanged, or waits for its NotBefore. Subscribers are called by
// another goroutine, so a slow one cannot hold up a candidate.
func (id *Identity) propose(m Material) error {
	id.publishing.Lock()
	defer id.publishing.Unlock()
	if id.ctx.Err() != nil {
		return ErrClosed
	}
	id.mu.Lock()
	need, lists := id.uses, id.lists
	id.mu.Unlock()
	now, prev := time.Now(), id.currentGeneration()
	g, err := validate(m, prev, lists, need)
	if err != nil {
		err = fmt.Errorf("refusing candidate: %w", err)
		id.noteFailure(err)
		return err
	}
	id.reportOthers(g, now)
	id.reportWarnings(g)
	if prev != nil && g.digest(now) == prev.digest(now) {
		id.postpone(nil)
		id.succeeded(now, g.revoked)
		return nil
	}
	if g.from().After(now) && (prev == nil || !prev.expired(now)) {
		id.postpone(g)
		id.succeeded(now, lists) // those of g come into effect with it
		return nil
	}
	id.postpone(nil)
	id.publish(g, now)
	return nil
}

// reportWarnings logs the tolerated faults of g that the candidate before did not have.
func (id *Identity) reportWarnings(g *Generation) {
	id.mu.Lock()
	known := id.health.warnings
	id.health.warnings = g.warnings
	id.mu.Unlock()
	for _, w := range g.warnings {
		if !slices.Contains(known, w) {
			id.log.Warn("identity has a fault that is tolerated", "serial", certs.Serial(g.Leaf()), "fault", w)
		}
	}
}

// publish makes g the current generation. The caller holds id.publishing. The order
// matters: the successor is stored before the predecessor is superseded, so that a
// request which the predecessor refuses finds the successor with the next load.
func (id *Identity) publish(g *Generation, now time.Time) {
	c := Change{Generation: g, Previous: id.currentGeneration(), Warning: g.untrusted}
	g.number, g.published = 1, now
	if c.Previous != nil {
		g.number = c.Previous.number + 1
	}
	n, old := newLiveGeneration(g), id.current.Load()
	id.mu.Lock()
	if old != nil {
		id.retiring = append(id.retiring, old)
	}
	id.current.Store(n)
	id.mu.Unlock()
	id.succeeded(now, g.revoked)
	if old != nil {
		old.supersede(now, id.drain)
	}
	if c.Previous != nil && g.revoked != c.Previous.revoked {
		id.cutRevoked(g)
	}
	id.wg.Go(func() { id.superviseGeneration(n) })
	for _, o := range g.others {
		id.wg.Go(func() { id.superviseOther(n, o) })
	}
	id.announce(g, c.Previous, now)
	if old == nil {
		close(id.started) // from here on there may be subscribers; for them this is no change
		return
	}
	id.events.push(c)
}

// about returns the attributes of a log line that name a certificate.
func about(leaf *x509.Certificate) []any {
	return []any{"serial", certs.Serial(leaf), "fingerprint", certs.Fingerprint(leaf), "not_after", leaf.NotAfter}
}

// announce logs what g changes of prev, which is nil at the start: one line for
// each kind of change.
func (id *Identity) announce(g, prev *Generation, now time.Time) {
	leaf := g.Leaf()
	switch {
	case prev == nil:
		id.log.Info("identity loaded", about(leaf)...)
	case !leaf.Equal(prev.Leaf()):
		id.log.Info("identity rotated", about(leaf)...)
	case !slices.EqualFunc(g.own.chain, prev.own.chain, (*x509.Certificate).Equal):
		id.log.Info("certificate chain changed", about(leaf)...)
	}
	if prev != nil && g.digestOthers(now) != prev.digestOthers(now) {
		id.log.Info("other certificates changed", "others", len(g.others))
	}
	if prev != nil && g.trust != prev.trust {
		id.log.Info("trust bundle changed", "roots", len(g.roots), "trust_digest", g.trust)
	}
	if prev != nil && g.revoked.digest != prev.revoked.digest {
		id.log.Info("revocation lists changed", "revoked_lists", len(g.revoked.lists), "revoked_serials", g.revoked.named.Len(), "revoked_kept", g.revoked.kept.Len())
	}
	if g.untrusted != nil {
		id.log.Warn("own trust bundle does not verify the own chain", append(about(leaf), "err", g.untrusted)...)
	}
}

// postpone keeps g until it becomes valid, in place of the candidate that it kept so
// far. A nil g drops that one.
func (id *Identity) postpone(g *Generation) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.held != nil {
		if now := time.Now(); g != nil && g.digest(now) == id.held.gen.digest(now) {
			return
		}
		id.held.cancel()
		id.held = nil
	}
	if g == nil {
		return
	}
	ctx, cancel := context.WithCancel(id.ctx)
	h := &postponed{gen: g, cancel: cancel}
	id.held = h
	id.wg.Go(func() { id.waitFor(ctx, h) })
}

// waitFor publishes h when it becomes valid, or when the generation in effect expires, if
// that is earlier: no peer accepts an expired leaf, but a peer whose clock is ahead
// accepts a leaf that is not valid yet.
func (id *Identity) waitFor(ctx context.Context, h *postponed) {
	defer h.cancel()
	at := h.gen.from()
	if g := id.currentGeneration(); g != nil && g.until().Before(at) {
		at = g.until()
	}
	if !wallclock.Until(ctx, at, nil) {
		return
	}
	id.publishing.Lock()
	defer id.publishing.Unlock()
	id.mu.Lock()
	mine := id.held == h
	if mine {
		id.held = nil
	}
	id.mu.Unlock()
	if mine && id.ctx.Err() == nil {
		id.publish(h.gen, time.Now())
	}
}

// superviseGeneration runs for each generation from its publication on: it warns when
// nothing replaces the leaf in time, and closes the connections of the generation when
// it is superseded and either drained or past its deadline.
func (id *Identity) superviseGeneration(n *liveGeneration) {
	leaf := n.gen.Leaf()
	if id.stillCurrentAt(n, lifetime.OverdueAt(leaf.NotBefore, leaf.NotAfter)) {
		id.tellOverdue(n)
	}
	if id.stillCurrentAt(n, n.gen.until()) {
		id.tellExpired(n)
	}
	select {
	case <-n.replaced:
		id.awaitDrain(n)
	case <-id.ctx.Done():
		return // Close ends the current generation itself
	}
	if cut := n.closeAll(); cut > 0 {
		id.forced.Add(uint64(cut))
		id.log.Warn("connections cut: their generation is over", append(about(leaf), "connections", cut)...)
	}
	id.mu.Lock()
	for i, r := range id.retiring {
		if r == n {
			id.retiring = append(id.retiring[:i:i], id.retiring[i+1:]...)
			break
		}
	}
	id.mu.Unlock()
}

// tellOverdue logs and tells subscribers that nothing has replaced the certificate of n
// in time. It does so once for each certificate: the next generation may have the same
// certificate with another trust bundle.
func (id *Identity) tellOverdue(n *liveGeneration) {
	e, g := &id.events, n.gen
	e.mu.Lock()
	news := id.current.Load() == n && e.overdue != g.thumb
	if news {
		e.overdue = g.thumb
		e.add(event{overdue(g), e.subs})
	}
	e.mu.Unlock()
	if news {
		id.log.Warn("certificate is not renewed in time", about(g.Leaf())...)
	}
}

// tellExpired logs that the certificate of n has expired, once for each certificate.
func (id *Identity) tellExpired(n *liveGeneration) {
	e := &id.events
	e.mu.Lock()
	news := e.expired != n.gen.thumb
	e.expired = n.gen.thumb
	e.mu.Unlock()
	if news {
		id.log.Error("certificate expired and nothing replaces it", about(n.gen.Leaf())...)
	}
}

// stillCurrentAt waits until at, and reports whether n is the current generation then.
func (id *Identity) stillCurrentAt(n *liveGeneration, at time.Time) bool {
	return wallclock.Until(id.ctx, at, n.replaced) && !isClosed(n.replaced)
}

// awaitDrain returns when nothing uses n any more, at the deadline of n, or when the
// Identity closes.
func (id *Identity) awaitDrain(n *liveGeneration) {
	n.mu.Lock()
	deadline := n.deadline
	n.mu.Unlock()
	wallclock.Until(id.ctx, deadline, n.drained)
}

// isClosed reports whether c is closed. Nothing is ever sent on c.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// succeeded records that the newest candidate is in effect. lists may be newer than those
// of the generation: with the same content, only the signature is new.
func (id *Identity) succeeded(now time.Time, lists *revocations) {
	id.mu.Lock()
	id.lists = lists
	id.health.success, id.health.err, id.health.failures = now, nil, 0
	id.mu.Unlock()
}

// cutRevoked cuts the client connections to servers that the lists of g revoke.
func (id *Identity) cutRevoked(g *Generation) {
	for _, n := range id.liveGenerations() {
		for _, c := range n.connections() {
			if c.pool.transport.opts.Trust == nil { // otherwise the lists of Trust count
				id.cutIfRevoked(c, &g.bundle)
			}
		}
	}
}

// cutIfRevoked cuts a client connection if b revokes its server.
func (id *Identity) cutIfRevoked(c *conn, b *bundle) {
	if err := b.checkRevoked(c.peerChains()); err != nil {
		id.log.Warn("connection cut", "peer", c.RemoteAddr().String(), "err", err)
		id.forced.Add(1)
		_ = c.Close() // over in any case
	}
}

// drains closes p, a pool of n whose trust bundle was replaced: as soon as nothing holds
// it, or after Config.DrainTimeout. It returns at once; a goroutine waits.
func (id *Identity) drains(n *liveGeneration, p *pool) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.closed {
		return // Close ends it with its generation
	}
	at := time.Now().Add(id.drain)
	id.wg.Go(func() {
		late := wallclock.Until(id.ctx, at, p.drained) && !isClosed(p.drained)
		cut := p.shutdown()
		n.forget(p)
		if late && cut > 0 {
			id.forced.Add(uint64(cut))
			id.log.Warn("connections cut: their trust bundle is over", "connections", cut)
		}
	})
}
