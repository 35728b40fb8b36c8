package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/internal/backoff"
	"github.com/artstore/artstore-pki/internal/connlimit"
	"github.com/artstore/artstore-pki/internal/unixsocket"
)

// Waits of a listener whose accept fails, for instance for want of descriptors.
const (
	firstPause = 5 * time.Millisecond
	mostPause  = time.Second
)

// errStopped reports connections that were cut at the end.
var errStopped = errors.New("connections were open at the end, and were cut")

// conns has the accepted connections, so that all can be cut, and counts them and their bytes.
type conns struct {
	*meter
	tls  bool       // TLS is above the connections
	mu   sync.Mutex // guards list and over
	list map[*conn]struct{}
	over bool // connections are cut as they come
}

func newConns(m *meter, tls bool) *conns {
	return &conns{meter: m, tls: tls, list: map[*conn]struct{}{}}
}

// conn is an accepted connection, below TLS and limits.
type conn struct {
	net.Conn
	owner *conns
	once  sync.Once
}

// NetConn returns the connection below.
func (c *conn) NetConn() net.Conn { return c.Conn }

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.owner.received.Add(uint64(n)) //nolint:gosec // G115: never negative
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.owner.sent.Add(uint64(n)) //nolint:gosec // G115: never negative
	return n, err
}

func (c *conn) Close() error {
	c.once.Do(func() {
		c.owner.open.Add(-1)
		c.owner.mu.Lock()
		delete(c.owner.list, c)
		c.owner.mu.Unlock()
	})
	return c.Conn.Close()
}

// listener passes accepted connections through conns, if permit has no objection.
type listener struct {
	net.Listener
	conns  *conns
	permit func(net.Conn) error // nil permits all
}

func (l listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.permit != nil {
			if err := l.permit(raw); err != nil {
				l.conns.fail(ofUser, "", err)
				_ = raw.Close() // refused
				continue
			}
		}
		return l.conns.add(raw), nil
	}
}

func (s *conns) add(raw net.Conn) net.Conn {
	if s.tls {
		raw = belowTLS{raw}
	}
	c := &conn{Conn: raw, owner: s}
	s.accepted.Add(1)
	s.open.Add(1)
	s.mu.Lock()
	over := s.over
	if !over {
		s.list[c] = struct{}{}
	}
	s.mu.Unlock()
	if over {
		_ = c.Close() // Accept has been called for the last time
	}
	return c
}

// cutAll aborts all connections, and those that come later. It returns how many were open.
func (s *conns) cutAll() int {
	s.mu.Lock()
	s.over = true
	all := make([]*conn, 0, len(s.list))
	for c := range s.list {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		newSide(c).abort()
	}
	return len(all)
}

// limited returns a listener that keeps to the caps. perAddress 0 means the default.
func (s *conns) limited(ln net.Listener, total, perAddress int) net.Listener {
	caps := connlimit.Caps{Total: total, PerAddress: perAddress}
	return connlimit.Listen(ln, func() connlimit.Caps { return caps }, func(from netip.Prefix) {
		s.fail(ofPeer, from.String(), errors.New("the address has as many connections as it may"))
	})
}

// acceptEach calls handle for each connection of ln, in a goroutine of its own, until ctx
// ends. Then it closes ln, and returns when all have ended. Those that go on for longer than
// stop are cut, and make an error.
func (s *conns) acceptEach(ctx context.Context, ln net.Listener, stop time.Duration, handle func(net.Conn)) error {
	var handlers sync.WaitGroup
	ended := make(chan error, 1)
	go func() { ended <- acceptUntilClosed(ctx, ln, func(c net.Conn) { handlers.Go(func() { handle(c) }) }) }()
	var err error
	select {
	case err = <-ended:
		_ = ln.Close() // it has failed already
		s.cutAll()
	case <-ctx.Done():
		err = ln.Close()
		<-ended //nolint:errcheck // says that ln is closed
	}
	return errors.Join(err, s.drain(&handlers, stop))
}

// drain waits for the handlers, and cuts the connections of those that take longer than stop.
func (s *conns) drain(handlers *sync.WaitGroup, stop time.Duration) error {
	done := make(chan struct{})
	go func() { handlers.Wait(); close(done) }()
	timer := time.NewTimer(stop)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
	}
	n := s.cutAll()
	<-done
	return fmt.Errorf("waiting %s: %w (%d)", stop, errStopped, n)
}

// acceptUntilClosed calls handle with each connection. Errors of accept that may pass are
// waited out, as net/http does.
func acceptUntilClosed(ctx context.Context, ln net.Listener, handle func(net.Conn)) error {
	for failed := 0; ; {
		c, err := ln.Accept()
		if err == nil {
			failed = 0
			handle(c)
			continue
		}
		if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Temporary() { //nolint:staticcheck // SA1019: for accept it has a meaning, and net/http asks it too
			return fmt.Errorf("accepting: %w", err)
		}
		select {
		case <-time.After(backoff.Step(firstPause, mostPause, failed)):
		case <-ctx.Done():
			return nil
		}
		failed++
	}
}

// permitUsers returns what admits the connections of these users, by their numbers, or nil
// if there are none.
func permitUsers(uids []int) func(net.Conn) error {
	if len(uids) == 0 {
		return nil
	}
	allowed := make(map[int]bool, len(uids))
	for _, uid := range uids {
		allowed[uid] = true
	}
	return func(c net.Conn) error {
		uid, err := unixsocket.PeerUID(c)
		if err != nil {
			return err
		}
		if !allowed[uid] {
			return fmt.Errorf("user %d is not on the list", uid)
		}
		return nil
	}
}
