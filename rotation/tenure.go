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

// tenure is a generation in office: the generation itself never changes, what
// depends on it does. It is held by leases and by the requests in its pools;
// superseded, each pool closes as soon as nothing holds it, and all of them at
// the deadline. mu guards counters and maps only, never I/O.
type tenure struct {
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

func newTenure(g *Generation) *tenure {
	return &tenure{gen: g, pools: map[*Transport]*pool{}, outdated: map[*pool]struct{}{}, replaced: make(chan struct{}), drained: make(chan struct{})}
}

// enter counts a request into the pool of t. A request without a lease is
// refused by a superseded tenure with nil, nil and goes to the next one; with a
// lease only the end of the tenure or of the transport refuses it.
func (n *tenure) enter(t *Transport, leased bool) (*pool, error) {
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

// outdate sets the pools of t apart that were made under another trust bundle
// than the one in effect, and returns all that are. The next request gets a new one.
func (n *tenure) outdate(t *Transport) (all []*pool) {
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
func (n *tenure) forget(p *pool) {
	n.mu.Lock()
	delete(n.outdated, p)
	idle := n.takeIdle()
	n.mu.Unlock()
	closeAll(idle)
}

// leave ends one request; the last one of a superseded tenure closes its pool.
func (n *tenure) leave(p *pool) {
	n.mu.Lock()
	p.requests--
	if p.draining && p.requests == 0 {
		close(p.drained)
	}
	idle := n.takeIdle()
	n.mu.Unlock()
	closeAll(idle)
}

// pin adds a lease, unless the tenure ended between the load of the current one and here.
func (n *tenure) pin() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.superseded {
		return false
	}
	n.leases++
	return true
}

func (n *tenure) unpin() {
	n.mu.Lock()
	n.leases--
	idle := n.takeIdle()
	n.mu.Unlock()
	closeAll(idle)
}

// supersede ends the office: no new holders from here on. The deadline is the
// earlier of the grace and the end of the leaf, which peers would refuse anyway.
func (n *tenure) supersede(now time.Time, grace time.Duration) {
	n.mu.Lock()
	n.superseded = true
	n.deadline = now.Add(grace)
	if end := n.gen.until(); end.Before(n.deadline) {
		n.deadline = end
	}
	idle := n.takeIdle()
	close(n.replaced)
	n.mu.Unlock()
	closeAll(idle)
}

// takeIdle removes the pools that nothing holds; the caller closes them after
// it let go of mu. A lease holds all pools: its owner has requests to come.
func (n *tenure) takeIdle() []*pool {
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

// end closes whatever is left, requests in flight included, and returns how many connections that were.
func (n *tenure) end() (cut int) {
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
	closeAll(rest)
	return cut
}

func (n *tenure) connections() (all []*conn) {
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

// drop closes the pool of one transport, which is closing.
func (n *tenure) drop(t *Transport) {
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
	closeAll(append(gone, idle...))
}

func (n *tenure) idle(t *Transport) {
	n.mu.Lock()
	p := n.pools[t]
	n.mu.Unlock()
	if p != nil {
		p.closeIdle()
	}
}

func closeAll(pools []*pool) {
	for _, p := range pools {
		p.close()
	}
}
