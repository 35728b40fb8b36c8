package rotation

import (
	"errors"
	"sync"
	"time"
)

// ErrClosed is returned for work on an Identity or Transport that was closed.
var ErrClosed = errors.New("rotation: closed")

// ErrRetired is returned for requests over a lease whose generation is over: it was
// superseded, and then Config.DrainTimeout passed or the leaf expired.
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
	superseded bool               // there is a successor, or the Identity is closed
	over       bool               // all pools are closed, and none is made any more
	deadline   time.Time          // when all pools are closed at the latest; set once superseded
	replaced   chan struct{}      // closed when superseded
	drained    chan struct{}      // closed when superseded and nothing holds a pool any more
}

func newLiveGeneration(g *Generation) *liveGeneration {
	return &liveGeneration{gen: g, pools: map[*Transport]*pool{}, outdated: map[*pool]struct{}{}, replaced: make(chan struct{}), drained: make(chan struct{})}
}

// acquire returns the pool of t with one more request counted in it; release ends the
// request. For a request without a lease, a superseded generation returns nil, nil: the
// caller goes to the successor. A request with a lease is refused only if the generation
// is over ([ErrRetired]) or the transport closed ([ErrClosed]).
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
	if p != nil && p.bundle != t.bundle(n.gen) { // the bundle changed, and outdatePools has not come here yet
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

// outdatePools returns the pools of t that were made under another trust bundle than the
// one in effect, each once. The next request gets a new pool. The caller closes those
// that are returned, when their requests have ended or their time is over.
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

// forget takes an outdated pool off the list. The caller has closed it.
func (n *liveGeneration) forget(p *pool) {
	n.mu.Lock()
	delete(n.outdated, p)
	idle := n.takeIdle()
	n.mu.Unlock()
	closePools(idle)
}

// release ends one request. The last request of a superseded generation closes its pool.
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

// lease counts one more lease. It returns false if the generation is superseded already:
// that may happen between the load of the current generation and this call.
func (n *liveGeneration) lease() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.superseded {
		return false
	}
	n.leases++
	return true
}

// unlease ends one lease. The last holder of a superseded generation closes its pools.
func (n *liveGeneration) unlease() {
	n.mu.Lock()
	n.leases--
	idle := n.takeIdle()
	n.mu.Unlock()
	closePools(idle)
}

// supersede says that there is a successor: from now on there are no new leases, and no
// new requests without a lease. All pools are closed after grace, or when the leaf
// expires, if that is earlier: peers would refuse it from then on.
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

// takeIdle removes the pools of a superseded generation that nothing holds, and returns
// them. A lease holds all pools, because its owner has requests to come. The caller holds
// mu, and closes the pools after it has released mu: closing is I/O.
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

// closeAll closes all pools, requests in flight included, and returns how many
// connections were open.
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

// dropTransport closes the pools of t, which is closing.
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
		p.shutdown()
	}
}
