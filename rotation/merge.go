package rotation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Merge makes one source of two: leaf, key and more certificates from identity;
// roots, revocation lists and what belongs to them from trust. It yields once both
// have delivered, and when either delivers anew. Each gets the answer for the
// combination; what a side delivered and had refused is tried again when the
// other changes, and never keeps the other's change from taking effect beside
// what was accepted before. When one ends, so does the other, with its error.
func Merge(identity, trust Source) Source { return merged{identity, trust} }

type merged [2]Source

// side indexes merged.
type side int

const (
	sideIdentity side = iota
	sideTrust
)

func (s side) String() string { return [...]string{"identity", "trust"}[s] }

// Watch implements [Source] for callers that wrap it.
func (m merged) Watch(ctx context.Context, yield func(Material) error) error {
	return m.watch(ctx, yield, silent{})
}

func (m merged) watch(ctx context.Context, yield func(Material) error, say observer) error {
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &merging{yield: yield, say: say, calls: make(chan func())}
	var ends [2]error
	var sides sync.WaitGroup
	for s, src := range m {
		h := &half{merging: r, side: side(s), ctx: sctx}
		sides.Go(func() {
			defer cancel()
			ends[s] = h.follow(src)
		})
	}
	ended := make(chan struct{})
	go func() { defer close(ended); sides.Wait() }()
	r.serve(ended)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return both(ends)
}

// RevokedError implements lister for trust that fetches its lists.
func (m merged) RevokedError() error {
	if l, ok := m[sideTrust].(lister); ok {
		return l.RevokedError()
	}
	return nil
}

// NextRenewal implements renewer for an identity that renews itself.
func (m merged) NextRenewal() time.Time {
	if r, ok := m[sideIdentity].(renewer); ok {
		return r.NextRenewal()
	}
	return time.Time{}
}

// merging is one run of a Merge. Its fields belong to the goroutine of Watch,
// which does everything that the two sides ask for: one yield at a time, and
// none after Watch returned.
type merging struct {
	yield func(Material) error
	say   observer
	calls chan func()

	latest, good [2]*Material
	mode         [2]string
	why, failed  [2]error
}

func (r *merging) serve(ended <-chan struct{}) {
	for {
		select {
		case call := <-r.calls:
			call()
		case <-ended:
			return
		}
	}
}

// half is what one side sees of the run: its yield and its observer.
type half struct {
	*merging
	side side
	ctx  context.Context // ends with either side
}

func (h *half) follow(src Source) error {
	offer := func(m Material) (err error) {
		if !h.do(func() { err = h.combine(h.side, m) }) {
			return h.ctx.Err()
		}
		return err
	}
	var err error
	if r, ok := src.(reporter); ok {
		err = r.watch(h.ctx, offer, h)
	} else {
		err = src.Watch(h.ctx, offer)
	}
	switch {
	case h.ctx.Err() != nil && errors.Is(err, context.Canceled):
		return nil // ended by the other side
	case err == nil && h.ctx.Err() == nil:
		err = errors.New("the source stopped")
	case err == nil:
		return nil
	}
	return fmt.Errorf("following %s: %w", h.side, err)
}

// do has the goroutine of Watch call f, and reports whether it did.
func (h *half) do(f func()) bool {
	if h.ctx.Err() != nil {
		return false
	}
	done := make(chan struct{})
	select {
	case h.calls <- func() { defer close(done); f() }:
		<-done
		return true
	case <-h.ctx.Done():
		return false
	}
}

// combine offers the new half with the other's latest, and if that was refused
// before and is again, with the one that was accepted.
func (r *merging) combine(s side, m Material) error {
	other := 1 - s
	r.latest[s] = &m
	if r.latest[other] == nil {
		return nil
	}
	err := r.offer(r.latest)
	if err != nil && r.good[other] != nil && r.good[other] != r.latest[other] {
		pair := r.good
		pair[s] = &m
		err = r.offer(pair)
	}
	if err != nil {
		return fmt.Errorf("combining with new %s: %w", s, err)
	}
	return nil
}

func (r *merging) offer(pair [2]*Material) error {
	id, trust := pair[sideIdentity], pair[sideTrust]
	m := Material{
		Certificate: id.Certificate, Others: id.Others, others: id.others, exposed: id.exposed,
		Roots: trust.Roots, Revoked: trust.Revoked, Issuers: trust.Issuers, Kept: trust.Kept, Version: id.Version,
	}
	if trust.Version != id.Version {
		m.Version += "+" + trust.Version
	}
	err := r.yield(m)
	if err == nil {
		r.good = pair
	}
	return err
}

// watching implements observer: the worse of both is the mode.
func (h *half) watching(mode string, why error) {
	h.do(func() {
		if why != nil {
			why = fmt.Errorf("%s: %w", h.side, why)
		}
		h.mode[h.side], h.why[h.side] = mode, why
		worse := h.mode[sideIdentity]
		if worse == "" || h.mode[sideTrust] == modePoll {
			worse = h.mode[sideTrust]
		}
		h.say.watching(worse, both(h.why))
	})
}

// failing implements observer: one side recovers, and the other's failure remains.
func (h *half) failing(err error) {
	h.do(func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", h.side, err)
		}
		h.failed[h.side] = err
		h.say.failing(both(h.failed))
	})
}

// both is errors.Join on one line, for logs and Status.
func both(e [2]error) error {
	switch {
	case e[0] == nil:
		return e[1]
	case e[1] == nil:
		return e[0]
	}
	return fmt.Errorf("%w; %w", e[0], e[1])
}
