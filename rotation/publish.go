package rotation

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// maxWait bounds one wait for a wall-clock time: timers stand still while a
// machine sleeps, so whoever waits for a time looks at the clock this often.
const maxWait = 30 * time.Second

// held is a candidate that waits for its NotBefore.
type held struct {
	gen    *Generation
	cancel context.CancelFunc
}

// offer is the yield of every source. No callback runs under publishing, so
// neither a subscriber nor a log handler can block a candidate for ever.
func (id *Identity) offer(m Material) error {
	id.publishing.Lock()
	defer id.publishing.Unlock()
	if id.ctx.Err() != nil {
		return ErrClosed
	}
	id.mu.Lock()
	need, lists := id.uses, id.lists
	id.mu.Unlock()
	now, prev := time.Now(), id.inEffect()
	g, err := examine(m, prev, lists, need)
	if err != nil {
		err = fmt.Errorf("refusing candidate: %w", err)
		id.failing(err)
		return err
	}
	id.reportOthers(g, now)
	id.reportWarnings(g)
	if prev != nil && g.digest(now) == prev.digest(now) {
		id.hold(nil)
		id.succeeded(now, g.revoked)
		return nil
	}
	if g.from().After(now) && (prev == nil || !prev.expired(now)) {
		id.hold(g)
		id.succeeded(now, lists) // those of g come into effect with it
		return nil
	}
	id.hold(nil)
	id.publish(g, now)
	return nil
}

// reportWarnings logs what is newly found to be wrong and no reason to refuse.
func (id *Identity) reportWarnings(g *Generation) {
	id.mu.Lock()
	known := id.health.warnings
	id.health.warnings = g.warnings
	id.mu.Unlock()
	for _, w := range g.warnings {
		if !slices.Contains(known, w) {
			id.log.Warn("identity has a fault that is tolerated", "serial", pemfile.Serial(g.Leaf()), "fault", w)
		}
	}
}

func (id *Identity) inEffect() *Generation {
	if n := id.current.Load(); n != nil {
		return n.gen
	}
	return nil
}

// publish makes g the current generation. The successor is visible before the
// predecessor refuses requests: whoever is refused finds it on the next load.
func (id *Identity) publish(g *Generation, now time.Time) {
	c := Change{Generation: g, Previous: id.inEffect(), Warning: g.untrusted}
	g.number, g.published = 1, now
	if c.Previous != nil {
		g.number = c.Previous.number + 1
	}
	n, old := newTenure(g), id.current.Load()
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
	id.wg.Go(func() { id.mind(n) })
	for _, o := range g.others {
		id.wg.Go(func() { id.mindOther(n, o) })
	}
	id.announce(g, c.Previous, now)
	if old == nil {
		close(id.started) // from here on there may be subscribers; for them this is no change
		return
	}
	id.events.push(c)
}

// hold keeps g until it is valid; it replaces what was held before.
func (id *Identity) hold(g *Generation) {
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
	h := &held{gen: g, cancel: cancel}
	id.held = h
	id.wg.Go(func() { id.waitFor(ctx, h) })
}

// waitFor publishes h when its time has come, or earlier when the generation in
// effect expires: a leaf that peers with a faster clock accept beats one that nobody accepts.
func (id *Identity) waitFor(ctx context.Context, h *held) {
	defer h.cancel()
	at := h.gen.from()
	if g := id.inEffect(); g != nil && g.until().Before(at) {
		at = g.until()
	}
	if !until(at, ctx.Done(), nil) {
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

// mind accompanies a tenure: it warns when nothing replaces the leaf in time,
// and ends the tenure when it is drained or out of grace.
func (id *Identity) mind(n *tenure) {
	leaf := n.gen.Leaf()
	if id.reaches(n, lifetime.OverdueAt(leaf.NotBefore, leaf.NotAfter)) {
		id.tellOverdue(n)
	}
	if id.reaches(n, n.gen.until()) {
		id.tellExpired(n)
	}
	select {
	case <-n.replaced:
		id.awaitDrain(n)
	case <-id.ctx.Done():
		return // Close ends the current tenure itself
	}
	if cut := n.end(); cut > 0 {
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

// reaches reports whether n is still in office at the given time.
func (id *Identity) reaches(n *tenure, at time.Time) bool {
	return until(at, n.replaced, id.ctx.Done())
}

// awaitDrain returns when nothing uses n any more, its grace is over or the Identity closes.
func (id *Identity) awaitDrain(n *tenure) {
	n.mu.Lock()
	deadline := n.deadline
	n.mu.Unlock()
	until(deadline, n.drained, id.ctx.Done())
}

// until waits for a wall-clock time and reports false when a or b came first.
func until(at time.Time, a, b <-chan struct{}) bool {
	for {
		t := time.NewTimer(min(maxWait, time.Until(at)))
		select {
		case <-a:
		case <-b:
		case <-t.C:
			if time.Now().Before(at) {
				continue
			}
			return true
		}
		t.Stop()
		return false
	}
}

// succeeded notes that what the source has is in effect, with the lists as they
// were signed last.
func (id *Identity) succeeded(now time.Time, lists *revocations) {
	id.mu.Lock()
	id.lists = lists
	id.health.success, id.health.err, id.health.failures = now, nil, 0
	id.mu.Unlock()
}

// cutRevoked ends the client connections to peers that g takes back.
func (id *Identity) cutRevoked(g *Generation) {
	for _, n := range id.tenures() {
		for _, c := range n.connections() {
			if c.pool.transport.opts.Trust == nil { // else the lists of that one count
				id.cutIfRevoked(c, &g.bundle)
			}
		}
	}
}

func (id *Identity) cutIfRevoked(c *conn, b *bundle) {
	if err := b.admit(c.peer()); err != nil {
		id.log.Warn("connection cut", "peer", c.RemoteAddr().String(), "err", err)
		id.forced.Add(1)
		_ = c.Close() // over in any case
	}
}

// drains accompanies a pool of n that was made under a trust bundle which was
// replaced since: it closes when nothing holds it any more or its grace is over.
func (id *Identity) drains(n *tenure, p *pool) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.closed {
		return // Close ends it with its tenure
	}
	at := time.Now().Add(id.drain)
	id.wg.Go(func() {
		late := until(at, p.drained, id.ctx.Done())
		cut := p.close()
		n.forget(p)
		if late && cut > 0 {
			id.forced.Add(uint64(cut))
			id.log.Warn("connections cut: their trust bundle is over", "connections", cut)
		}
	})
}

// failing implements observer. A failure that repeats itself is told once.
func (id *Identity) failing(err error) {
	id.mu.Lock()
	known := err == nil || text(id.health.err) == err.Error()
	id.health.err = err
	id.health.failures++
	if err == nil {
		id.health.failures = 0
	}
	if !known {
		id.health.refused++
	}
	id.mu.Unlock()
	if known {
		return
	}
	id.log.Warn("identity not refreshed", "err", err)
	id.events.push(Change{Generation: id.inEffect(), Err: err})
}

// watching implements observer.
func (id *Identity) watching(mode string, why error) {
	id.mu.Lock()
	id.health.mode, id.health.modeErr = mode, why
	id.mu.Unlock()
	if why != nil {
		id.log.Warn("file notification unavailable, polling only", "err", why)
	}
}
