package rotation

import (
	"errors"
	"sync"
	"time"
)

// ErrClosed is returned for work on an Identity, Transport or Lease that is over.
var ErrClosed = errors.New("rotation: closed")

// ErrRetired is returned to a lease that outlived its generation: it was
// superseded and then either Config.DrainTimeout passed or the leaf expired.
var ErrRetired = errors.New("rotation: the generation is retired")

// liveGeneration is the mutable side of a Generation: its pools, and the counts of
// the leases and requests that hold them. Once it is superseded, a pool closes as
// soon as nothing holds it, and all pools close at the deadline. mu guards counters
// and maps only and is never held across I/O.
type liveGeneration struct {
	gen *Generation

	mu         sync.Mutex
	leases     int
	pools      map[*Transport]*pool
	outdated   map[*pool]struct{} // made under a trust bundle that was replaced
	superseded bool
	over       bool
	deadline   time.Time     // of the hard close, once superseded
	replaced   chan struct{} // closed when superseded
	drained    chan struct{} // closed when superseded and nothing holds it any more
}

func newTenure(g *Generation) *liveGeneration {
	return &liveGeneration{gen: g, pools: map[*Transport]*pool{}, outdated: map[*pool]struct{}{}, replaced: make(chan struct{}), drained: make(chan struct{})}
}

// acquire counts a request into the pool of t. A request without a lease is
// refused by a superseded generation with nil, nil and goes to the next one; with a
// lease only the end of the generation or of the transport refuses it.
func (n *liveGeneration) acquire(t *Transport, leased bool) (*pool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.over && leased:
		return nil, ErrRetired
	case n.over, n.superseded && !leased:
		return nil, nil
	case t.closed.Load():
		return nil, ErrClosed
	}
	p := n.pools[t]
	if p != nil && p.bundle != t.bundle(n.gen) { // the bundle changed in this instant: see renewTrust
		n.outdated[p] = struct{}{}
		p = nil
	}
	if p == nil {
		p = newPool(t, n.gen)
		n.pools[t] = p
	}
	p.requests++
	return p, nil
}

// outdatePools sets the pools of t apart that were made under another trust bundle
// than the one in effect, and returns all that are. The next request gets a new one.
func (n *liveGeneration) outdatePools(t *Transport) (all []*pool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.pools[t]; p != nil && p.bundle != t.bundle(n.gen) {
		n.outdated[p] = struct{}{}
		delete(n.pools, t)
	}
	for p := range n.outdated {
		if p.transport != t || p.draining {
			continue
		}
		p.draining = true
		if p.requests == 0 {
			close(p.drained)
		}
		all = append(all, p)
	}
	return all
}

// forget takes a pool that was outdated off the list; the caller closes it.
func (n *liveGeneration) forget(p *pool) {
	n.mu.Lock()
	delete(n.outdated, p)
	idle := n.takeIdle()
	n.mu.Unlock()
	closePools(idle)
}

// release ends one request; the last one of a superseded generation closes its pool.
func (n *liveGeneration) release(p *pool) {
	n.mu.Lock()
	p.requests--
	if p.draining && p.requests == 0 {
		close(p.drained)
	}
	idle := n.takeIdle()
	n.mu.Unlock()
	closePools(idle)
}

// lease adds a lease, unless the generation was superseded between the load of the current one and here.
func (n *liveGeneration) lease() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.superseded {
		return false
	}
	n.leases++
	return true
}

func (n *liveGeneration) unlease() {
	n.mu.Lock()
	n.leases--
	idle := n.takeIdle()
	n.mu.Unlock()
	closePools(idle)
}

// supersede ends the office: no new holders from here on. The deadline is the
// earlier of the grace and the end of the leaf, which peers would refuse anyway.
func (n *liveGeneration) supersede(now time.Time, grace time.Duration) {
	n.mu.Lock()
	n.superseded = true
	n.deadline = now.Add(grace)
	if end := n.gen.until(); end.Before(n.deadline) {
		n.deadline = end
	}
	idle := n.takeIdle()
	close(n.replaced)
	n.mu.Unlock()
	closePools(idle)
}

// takeIdle removes the pools that nothing holds; the caller closes them after
// it let go of mu. A lease holds all pools: its owner has requests to come.
func (n *liveGeneration) takeIdle() []*pool {
	if !n.superseded || n.over || n.leases > 0 {
		return nil
	}
	var idle []*pool
	for t, p := range n.pools {
		if p.requests == 0 {
			idle = append(idle, p)
			delete(n.pools, t)
		}
	}
	if len(n.pools) == 0 && len(n.outdated) == 0 {
		n.over = true
		close(n.drained)
	}
	return idle
}

// closeAll closes whatever is left, requests in flight included, and returns how many connections that were.
func (n *liveGeneration) closeAll() (cut int) {
	n.mu.Lock()
	var rest []*pool
	for _, p := range n.pools {
		rest = append(rest, p)
	}
	for p := range n.outdated {
		rest = append(rest, p)
	}
	clear(n.pools)
	clear(n.outdated)
	n.over = true
	n.mu.Unlock()
	for _, p := range rest {
		cut += len(p.connections())
	}
	closePools(rest)
	return cut
}

func (n *liveGeneration) connections() (all []*conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.pools {
		all = append(all, p.connections()...)
	}
	for p := range n.outdated {
		all = append(all, p.connections()...)
	}
	return all
}

// dropTransport closes the pool of one transport, which is closing.
func (n *liveGeneration) dropTransport(t *Transport) {
	n.mu.Lock()
	var gone []*pool
	if p := n.pools[t]; p != nil {
		gone = append(gone, p)
	}
	delete(n.pools, t)
	for p := range n.outdated {
		if p.transport == t {
			gone = append(gone, p)
			delete(n.outdated, p)
		}
	}
	idle := n.takeIdle()
	n.mu.Unlock()
	closePools(append(gone, idle...))
}

func (n *liveGeneration) closeIdle(t *Transport) {
	n.mu.Lock()
	p := n.pools[t]
	n.mu.Unlock()
	if p != nil {
		p.closeIdle()
	}
}

func closePools(pools []*pool) {
	for _, p := range pools {
		p.close()
	}
}
