package httpsrv

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// What Config.Refused is told.
const (
	LimitConns    = "connections"
	LimitRequests = "requests"
	LimitBodies   = "bodies"
)

const warnEvery = time.Minute

// refusals reports what was over a cap: each to a counter, one a minute to the log.
type refusals struct {
	tell func(what string)
	log  *slog.Logger

	mu     sync.Mutex
	warned time.Time
	since  int // refused after the last warning
}

func (r *refusals) add(what string, from netip.Prefix) {
	if r.tell != nil {
		r.tell(what)
	}
	if n := r.due(time.Now()); n > 0 {
		r.log.Warn("an address is at its cap", "limit", what, "address", from.String(), "refused", n)
	}
}

// due counts one more, and returns how many a warning is about; 0 is none now.
func (r *refusals) due(now time.Time) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.since++
	if !r.warned.IsZero() && now.Sub(r.warned) < warnEvery {
		return 0
	}
	n := r.since
	r.warned, r.since = now, 0
	return n
}
