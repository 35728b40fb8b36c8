package rotation

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// maxQueue bounds how many changes may wait for a slow subscriber before failures are
// dropped. Rotations are never dropped.
const maxQueue = 64

// Change is what a subscriber gets: a rotation, a failure, or a certificate that is
// overdue.
type Change struct {
	Generation *Generation // in effect after the change
	Previous   *Generation // superseded by Generation; nil if Err is set
	Warning    error       // why the new bundle does not verify the own chain, or nil
	Err        error       // why a candidate was refused or the source fails, or that the certificate is overdue; Generation stays in effect
	// Overdue says that the certificate in effect should have been renewed by now, with
	// a fifth of its life left (as Overdue of [Identity.Status]). A subscriber gets it once for each
	// certificate; if the certificate is overdue already, it gets it first.
	Overdue bool
}

func overdue(g *Generation) Change {
	return Change{
		Generation: g, Overdue: true,
		Err: fmt.Errorf("the certificate is not renewed in time and expires at %s", g.until().UTC().Format(time.RFC3339)),
	}
}

// events delivers changes in order. One goroutine calls the subscribers and holds no
// lock meanwhile, so a subscriber may call everything but Close.
type events struct {
	mu    sync.Mutex
	subs  []*subscriber
	queue []event
	wake  chan struct{} // capacity 1

	overdue, expired string // thumbprint of the last certificate that was told to be overdue or expired
}

type subscriber struct {
	fn      func(Change)
	stopped atomic.Bool
}

type event struct {
	change Change
	subs   []*subscriber // as of the change
}

// Subscribe calls fn after each later change, in order. One goroutine calls all
// subscribers: a slow fn delays the others, but no publication. If the certificate in
// effect is overdue already, fn is called with that first. After stop has returned, fn is
// not called again; one call may still be running.
func (id *Identity) Subscribe(fn func(Change)) (stop func()) {
	s := &subscriber{fn: fn}
	e := &id.events
	e.mu.Lock()
	e.subs = append(e.subs[:len(e.subs):len(e.subs)], s) // queued events keep their own view
	if g := id.Current(); e.overdue == g.thumb {
		e.add(event{overdue(g), []*subscriber{s}})
	}
	e.mu.Unlock()
	return func() {
		s.stopped.Store(true)
		e.mu.Lock()
		defer e.mu.Unlock()
		kept := make([]*subscriber, 0, len(e.subs))
		for _, o := range e.subs {
			if o != s {
				kept = append(kept, o)
			}
		}
		e.subs = kept
	}
}

// push queues a change for all subscribers. A failure is dropped if maxQueue changes wait
// already.
func (e *events) push(c Change) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c.Err == nil || c.Overdue || len(e.queue) < maxQueue {
		e.add(event{c, e.subs})
	}
}

// add queues an event and wakes dispatch. The caller holds e.mu.
func (e *events) add(ev event) {
	if len(ev.subs) == 0 {
		return
	}
	e.queue = append(e.queue, ev)
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// takeAll returns the queued events, oldest first, and empties the queue.
func (e *events) takeAll() []event {
	e.mu.Lock()
	defer e.mu.Unlock()
	q := e.queue
	e.queue = nil
	return q
}

func (id *Identity) dispatch() {
	for {
		select {
		case <-id.ctx.Done():
			return
		case <-id.events.wake:
		}
		for _, ev := range id.events.takeAll() {
			for _, s := range ev.subs {
				if !s.stopped.Load() && id.ctx.Err() == nil {
					s.fn(ev.change)
				}
			}
		}
	}
}
