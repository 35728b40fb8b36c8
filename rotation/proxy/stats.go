package proxy

import (
	"iter"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/internal/lograte"
)

// Stats are figures of a proxy since its start. Peers that are refused in the handshake or for
// their certificate are not in it: [rotation.Identity.Status] counts them.
type Stats struct {
	Connections int    // open now, handshakes included
	Accepted    uint64 // connections
	Requests    uint64 // of HTTP
	Received    uint64 // bytes from those who connect to the proxy, those of TLS included
	Sent        uint64 // bytes to them

	failures [failureKinds]uint64
}

// Failures returns the number of failures by kind: unreachable (no connection to the service,
// or to the server of a [Client]), broken (it ended a connection or an answer in the middle),
// peer (the other side did), idle, request (a request that is not passed on) and user (a
// connection of a user who may not use the socket).
func (s Stats) Failures() iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		for kind, n := range s.failures {
			if !yield(failure(kind).String(), n) {
				return
			}
		}
	}
}

// failure is a kind of what went wrong with one connection or request.
type failure int

const (
	unreachable failure = iota
	broken
	ofPeer
	idle
	ofRequest
	ofUser
	failureKinds
)

// String is the name in metrics and logs.
func (f failure) String() string {
	return [...]string{"unreachable", "broken", "peer", "idle", "request", "user"}[f]
}

// meter counts, and writes a line of the log for each kind of failure once a minute.
type meter struct {
	log      *slog.Logger
	open     atomic.Int64
	accepted atomic.Uint64
	requests atomic.Uint64
	received atomic.Uint64
	sent     atomic.Uint64
	failures [failureKinds]struct {
		count atomic.Uint64
		lines lograte.Gate
	}
}

func newMeter(log *slog.Logger) *meter {
	if log == nil {
		log = slog.Default()
	}
	return &meter{log: log}
}

// Stats returns the figures of now.
func (m *meter) Stats() Stats {
	s := Stats{
		Connections: int(m.open.Load()), Accepted: m.accepted.Load(), Requests: m.requests.Load(),
		Received: m.received.Load(), Sent: m.sent.Load(),
	}
	for kind := range m.failures {
		s.failures[kind] = m.failures[kind].count.Load()
	}
	return s
}

// fail counts a failure. Only the service being away is a warning: the others are caused by
// peers, and are logged at info level.
func (m *meter) fail(kind failure, peer string, err error) {
	f := &m.failures[kind]
	f.count.Add(1)
	attrs := []any{"kind", kind.String(), "peer", peer, "err", err}
	n := f.lines.Pass(time.Now())
	switch {
	case n == 0:
		m.log.Debug("connection failed", attrs...)
	case kind == unreachable:
		m.log.Warn("connection failed", append(attrs, "count", n)...)
	default:
		m.log.Info("connection failed", append(attrs, "count", n)...)
	}
}
