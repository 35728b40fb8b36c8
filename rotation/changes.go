package rotation

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// maxQueue bounds the failures that wait for a slow subscriber; rotations always wait.
const maxQueue = 64

// Change tells subscribers what happened.
type Change struct {
	Generation *Generation // in effect after the change
	Previous   *Generation // superseded by it; nil when Err is set
	Warning    error       // published although the new bundle does not verify the own chain
	Err        error       // a candidate was refused, the source fails, or Overdue; Generation stays in effect
	// Overdue: the certificate in effect should have been renewed by now, and is
	// valid for a fifth of its life yet (as Overdue of [Identity.Status]). Told once for each
	// certificate, and to a subscriber that comes later when it subscribes.
	Overdue bool
}

func overdue(g *Generation) Change {
	return Change{
		Generation: g, Overdue: true,
		Err: fmt.Errorf("the certificate is not renewed in time and expires at %s", g.until().UTC().Format(time.RFC3339)),
	}
}

// events delivers changes in order, from one goroutine that holds no lock, so
// that a subscriber may call everything but Close.
type events struct {
	mu    sync.Mutex
	subs  []*subscriber
	queue []event
	wake  chan struct{} // capacity 1

	overdue, expired string // thumbprints of the certificates that were last said to be so
}

type subscriber struct {
	fn      func(Change)
	stopped atomic.Bool
}

type event struct {
	change Change
	subs   []*subscriber // as of the change
}

// Subscribe has fn called after every later change, in order, one at a time for
// all subscribers; a slow fn delays the others and no publication. When the
// certificate in effect is overdue already, fn is told that first. After stop
// returned, fn is not started again; one call may still be running.
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

func (e *events) push(c Change) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c.Err == nil || c.Overdue || len(e.queue) < maxQueue {
		e.add(event{c, e.subs})
	}
}

// add queues an event; the caller holds e.mu.
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
