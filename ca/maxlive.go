package ca

import (
	"context"
	"sync"
	"time"
)

const (
	defaultMaxLive = 10_000

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

// maxLive is the cap that the commit has to check, or 0 if the service is far
// below it: under half of it at the last count, which is at most liveRecount ago,
// and by what was issued here since. Two replicas cannot exceed a cap that each
// of them keeps to half of; more may, by what they issue until they count again.
func (a *Authority) maxLive(ctx context.Context, p *profile, now time.Time) (int, error) {
	if p.maxLive <= liveExact {
		return p.maxLive, nil
	}
	if n, ok := a.live.next(p.service, now); ok && n < p.maxLive/2 {
		return 0, nil
	}
	n, err := a.record.Live(ctx, p.service, now, p.maxLive)
	if err != nil {
		return 0, err
	}
	a.live.set(p.service, liveCount{now, n})
	if n < p.maxLive/2 {
		return 0, nil
	}
	return p.maxLive, nil
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
