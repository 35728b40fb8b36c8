// Package lograte keeps events that strangers can cause from filling a log.
package lograte

import (
	"sync"
	"time"
)

// Every is the least time between two lines of a [Gate].
const Every = time.Minute

// Gate decides which events of one kind become a line of the log. The zero value
// is ready, and passes the first event. It is safe for concurrent use.
type Gate struct {
	mu     sync.Mutex
	passed time.Time
	since  int // events after the last line
}

// Pass counts an event. It returns how many events a line of the log should report: this one
// and those since the last line. It returns 0 if the last line is less than a minute old.
func (g *Gate) Pass(now time.Time) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.since++
	if !g.passed.IsZero() && now.Sub(g.passed) < Every {
		return 0
	}
	n, g.passed, g.since = g.since, now, 0
	return n
}
