package rotation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Merge makes one source of two. Leaf, key and other certificates are of identity; roots
// and revocation lists are of trust. It yields the combination once both have delivered,
// and whenever one of them delivers again; that one gets the answer. If the combination
// is refused, it is tried again when the other side changes. A side whose last delivery
// was refused does not hold up the other: that one is then combined with what was
// accepted last. When one source ends, so does the other, with its error.
func Merge(identity, trust Source) Source { return merged{identity, trust} }

type merged [2]Source

// side indexes merged.
type side int

const (
	sideIdentity side = iota
	sideTrust
)

func (s side) String() string { return [...]string{"identity", "trust"}[s] }

// silent is an [Observer] that does nothing.
type silent struct{}

func (silent) Mode(string, error) {}
func (silent) Failed(error)       {}

// Watch implements [Source] for callers that wrap it.
func (m merged) Watch(ctx context.Context, yield func(Material) error) error {
	return m.WatchObserved(ctx, yield, silent{})
}

// WatchObserved is Watch for an [Identity].
func (m merged) WatchObserved(ctx context.Context, yield func(Material) error, o Observer) error {
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &mergeRun{yield: yield, observer: o, calls: make(chan func())}
	var ends [2]error
	var sides sync.WaitGroup
	for s, src := range m {
		h := &sideRun{mergeRun: r, side: side(s), ctx: sctx}
		sides.Go(func() {
			defer cancel()
			ends[s] = h.runSide(src)
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

// mergeRun is one run of a Merge. Its fields belong to the goroutine of Watch, which
// executes the calls of both sides. So there is one yield at a time, and none after Watch
// has returned.
type mergeRun struct {
	yield    func(Material) error
	observer Observer
	calls    chan func()

	latest, good [2]*Material // of each side: delivered last, and accepted last
	mode         [2]string    // of each side, as Mode said
	why, failed  [2]error     // of each side, as Mode and Failed said
}

func (r *mergeRun) serve(ended <-chan struct{}) {
	for {
		select {
		case call := <-r.calls:
			call()
		case <-ended:
			return
		}
	}
}

// sideRun is one side of the run: its source is given its yield and its [Observer].
type sideRun struct {
	*mergeRun
	side side
	ctx  context.Context // ends with either side
}

func (h *sideRun) runSide(src Source) error {
	offer := func(m Material) (err error) {
		if !h.onRunner(func() { err = h.combine(h.side, m) }) {
			return h.ctx.Err()
		}
		return err
	}
	err := watchSource(h.ctx, src, offer, h)
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

// onRunner lets the goroutine of Watch call f, and reports whether f was called. It is
// not called after the run has ended.
func (h *sideRun) onRunner(f func()) bool {
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

// combine proposes m, which side s has delivered, together with the latest material of
// the other side. If that is refused, it proposes m with the material of the other side
// that was accepted last, if that is another one.
func (r *mergeRun) combine(s side, m Material) error {
	other := 1 - s
	r.latest[s] = &m
	if r.latest[other] == nil {
		return nil
	}
	err := r.proposePair(r.latest)
	if err != nil && r.good[other] != nil && r.good[other] != r.latest[other] {
		pair := r.good
		pair[s] = &m
		err = r.proposePair(pair)
	}
	if err != nil {
		return fmt.Errorf("combining with new %s: %w", s, err)
	}
	return nil
}

func (r *mergeRun) proposePair(pair [2]*Material) error {
	id, trust := pair[sideIdentity], pair[sideTrust]
	m := Material{
		Certificate: id.Certificate, Others: id.Others, OtherNames: id.OtherNames, OtherErrors: id.OtherErrors, Faults: id.Faults,
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

// Mode implements [Observer]. The mode of the run is the worse one of both sides.
func (h *sideRun) Mode(mode string, why error) {
	h.onRunner(func() {
		if why != nil {
			why = fmt.Errorf("%s: %w", h.side, why)
		}
		h.mode[h.side], h.why[h.side] = mode, why
		worse := h.mode[sideIdentity]
		if worse == "" || h.why[sideTrust] != nil {
			worse = h.mode[sideTrust]
		}
		h.observer.Mode(worse, both(h.why))
	})
}

// Failed implements [Observer]. When one side recovers, the failure of the other remains.
func (h *sideRun) Failed(err error) {
	h.onRunner(func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", h.side, err)
		}
		h.failed[h.side] = err
		h.observer.Failed(both(h.failed))
	})
}

// both joins two errors, which may be nil, on one line.
func both(e [2]error) error {
	switch {
	case e[0] == nil:
		return e[1]
	case e[1] == nil:
		return e[0]
	}
	return fmt.Errorf("%w; %w", e[0], e[1])
}
