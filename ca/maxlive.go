package ca

import (
	"context"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/ca/policy"
)

const (
	// A cap up to liveExact is counted with each first certificate: that is one
	// range of an index. A larger one is counted now and then while it is far.
	liveExact   = 1000
	liveRecount = 10 * time.Second
)

// liveCounts remember how many certificates large services had, so that not each
// commit counts thousands of rows. Its keys are the services of pki.yaml.
type liveCounts struct {
	mu sync.Mutex
	by map[string]liveCount
}

type liveCount struct {
	at time.Time
	n  int // counted then, and issued here since
}

// liveLimit returns the limit that the commit must enforce, or 0 to skip the check:
// while the last count and what was issued here since are below half of the limit.
// Two replicas therefore keep the limit. N can exceed it by (N−2)/2 × limit until the
// next count, which is at most liveRecount away.
func (a *Authority) liveLimit(ctx context.Context, p *policy.Service, now time.Time) (int, error) {
	if p.MaxLive <= liveExact {
		return p.MaxLive, nil
	}
	if n, ok := a.live.next(p.Name, now); ok && n < p.MaxLive/2 {
		return 0, nil
	}
	n, err := a.record.Live(ctx, p.Name, now, p.MaxLive)
	if err != nil {
		return 0, err
	}
	a.live.set(p.Name, liveCount{now, n})
	if n < p.MaxLive/2 {
		return 0, nil
	}
	return p.MaxLive, nil
}

// next counts one more and returns the sum, if there is a count that is young enough.
func (l *liveCounts) next(service string, now time.Time) (n int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.by[service]
	if !ok || now.Sub(c.at) >= liveRecount || now.Before(c.at) {
		return 0, false
	}
	c.n++
	l.by[service] = c
	return c.n, true
}

func (l *liveCounts) set(service string, c liveCount) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == nil {
		l.by = make(map[string]liveCount)
	}
	l.by[service] = c
}
