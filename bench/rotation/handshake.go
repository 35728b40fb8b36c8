package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"

	"github.com/artstore/artstore-pki/bench/internal/frame"
)

// bar is the most that a handshake of ours may cost of a static one.
const bar = 1.03

// plan says how handshakes are measured.
type plan struct {
	rounds, n int // handshakes of a variant: n in each of the rounds
	network   string
	resumed   bool
	rng       *rand.Rand
}

// result is one line of the table.
type result struct {
	variant
	samples    []float64 // µs of CPU per handshake, by round
	allocs     float64
	kib        float64
	resumed    int // of 20 connections of one new client
	mismatched int // handshakes that were not of the kind measured
}

func handshakeTable(ctx context.Context, w io.Writer, r *rig, p plan) error {
	all, err := variants(ctx, r)
	if err != nil {
		return err
	}
	defer stopAll(all)
	lanes := make([]*lane, 0, len(all))
	defer func() {
		for _, l := range lanes {
			l.shutdown()
		}
	}()
	for _, v := range all {
		l, err := newLane(ctx, v, p.network)
		if err != nil {
			return err
		}
		lanes = append(lanes, l)
	}
	results, err := measure(ctx, r, lanes, p)
	if err != nil {
		return err
	}
	return printHandshakes(w, results, p)
}

// measure runs the rounds. Between two slots the heap is collected and the cost
// of that is nobody's: each variant starts with the same heap, and what it
// allocates is reported beside its time.
func measure(ctx context.Context, r *rig, lanes []*lane, p plan) ([]result, error) {
	results := make([]result, len(lanes))
	for i, l := range lanes {
		results[i].variant = l.variant
		var cache tls.ClientSessionCache
		if p.resumed {
			cache = tls.NewLRUClientSessionCache(1)
		}
		l.client = r.clientConfig(cache)
		for range 2 { // code and tickets warm
			if _, err := l.shake(ctx, l.client); err != nil {
				return nil, fmt.Errorf("shaking hands with %s: %w", l.name, err)
			}
		}
		if err := l.facts(ctx, r, &results[i]); err != nil {
			return nil, err
		}
	}
	samples, err := frame.Rounds(p.rng, p.rounds, len(lanes), func(i int) (float64, error) { return slot(ctx, lanes[i], &results[i], p) })
	for i := range samples {
		results[i].samples = samples[i]
	}
	return results, err
}

// slot is the turn of one variant: µs of CPU per handshake.
func slot(ctx context.Context, l *lane, res *result, p plan) (float64, error) {
	runtime.GC()
	began := frame.OwnCPU()
	for range p.n {
		resumed, err := l.shake(ctx, l.client)
		if err != nil {
			return 0, fmt.Errorf("shaking hands with %s: %w", l.name, err)
		}
		if resumed != p.resumed {
			res.mismatched++
		}
	}
	return float64((frame.OwnCPU() - began).Nanoseconds()) / 1e3 / float64(p.n), nil
}

// facts are what does not depend on the clock: allocations of both ends, and
// how often a new client with a session cache resumes.
func (l *lane) facts(ctx context.Context, r *rig, res *result) error {
	const n = 20
	cached := r.clientConfig(tls.NewLRUClientSessionCache(1))
	for range n {
		resumed, err := l.shake(ctx, cached)
		if err != nil {
			return fmt.Errorf("resuming with %s: %w", l.name, err)
		}
		if resumed {
			res.resumed++
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		if _, err := l.shake(ctx, l.client); err != nil {
			return fmt.Errorf("shaking hands with %s: %w", l.name, err)
		}
	}
	runtime.ReadMemStats(&after)
	res.allocs = float64(after.Mallocs-before.Mallocs) / n
	res.kib = float64(after.TotalAlloc-before.TotalAlloc) / n / 1024
	return nil
}

func printHandshakes(w io.Writer, results []result, p plan) error {
	kind := "full"
	if p.resumed {
		kind = "resumed"
	}
	t := newTable(w)
	t.line("\nHandshakes, %s, over %s: %d rounds of %d, mutual TLS 1.3, both ends together", kind, p.network, p.rounds, p.n)
	t.line("server\torigin\tper CPU-s\tµs CPU\tratio\tquartiles\t95 %% of the median\tallocs\tKiB\tresumed")
	limit := results[0].samples
	sums := map[string]summary{}
	for _, res := range results {
		s := summarise(ratios(res.samples, limit), p.rng)
		sums[res.name] = s
		m := median(res.samples)
		t.line("%s\t%s\t%.0f\t%.0f\t%.3f\t%.2f %.2f\t%.3f %.3f\t%.0f\t%.0f\t%d/20%s",
			res.name, res.origin, 1e6/m, m, s.median, s.q1, s.q3, s.low, s.high, res.allocs, res.kib, res.resumed, res.remark(p))
	}
	t.verdict(sums[oursName], sums[controlName])
	return t.flush()
}

// remark says where a variant cannot do what the table measures.
func (r result) remark(p plan) string {
	switch {
	case r.mismatched == 0:
		return ""
	case p.resumed && r.mismatched == p.rounds*p.n:
		return " (full ones measured)"
	}
	return fmt.Sprintf(" (%d of the other kind)", r.mismatched)
}

// verdict holds ours against the bar: no more than the limit and a little, and
// not to be told from the same static configuration measured a second time.
func (t *table) verdict(ours, control summary) {
	told := "differs from"
	if ours.overlaps(control) {
		told = "cannot be told from"
	}
	t.line("bar: ours %.3f [%.3f %.3f] against control %.3f [%.3f %.3f]: %s the control; at most %.2f: %s",
		ours.median, ours.low, ours.high, control.median, control.low, control.high, told, bar, ours.against(bar))
}

// against needs the whole interval on one side: a short run decides nothing.
func (s summary) against(bar float64) string {
	switch {
	case s.high <= bar:
		return "met"
	case s.low > bar:
		return "NOT MET"
	}
	return "undecided, more rounds are needed"
}
