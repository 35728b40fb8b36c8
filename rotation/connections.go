package rotation

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// reauthorizeEvery is how often Authorize is asked about the open connections.
	reauthorizeEvery = time.Second
	// lingerTime and lingerBytes bound what is done for a peer that was refused.
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 64 << 10
)

// connTracker are the open connections of a Server.
type connTracker struct {
	mu         sync.Mutex
	conns      map[*serverConn]struct{}
	monitoring bool
	next       time.Time     // when mind looks again; far away while there is no connection
	changed    chan struct{} // capacity 1: there is a connection that is due earlier
	rounds     atomic.Uint64 // calls of Reauthorize
}

// serverConn is what lies under the *tls.Conn of an accepted connection.
type serverConn struct {
	net.Conn
	server *Server
	opened uint64 // number of the generation in effect when the handshake began
	peer   peerState

	mu    sync.Mutex  // guards what follows; never held across I/O or Authorize
	gen   *Generation // that judged the certificate last
	drain error       // its verdict, nil: nothing is wrong
	cutAt time.Time   // zero: not draining
}

// policyEpoch is what peers are admitted by besides the time and the answers of Authorize.
type policyEpoch struct {
	gen    *Generation
	rounds uint64 // calls of Reauthorize
}

func (s *Server) currentEpoch() policyEpoch {
	return policyEpoch{s.id.Current(), s.conns.rounds.Load()}
}

// Handshake runs the server's side of a handshake on raw, within ctx and 10 s,
// and looks after the connection from then on. It closes raw on errors, and counts
// a refused peer in RefusedPeers of [Identity.Status]. For servers that get their connections
// from elsewhere; [Server.Listener] uses it.
func (s *Server) Handshake(ctx context.Context, raw net.Conn) (*tls.Conn, error) {
	std := s.currentEpoch()
	c := &serverConn{Conn: raw, server: s, opened: std.gen.number, gen: std.gen}
	conn := tls.Server(c, s.TLSConfig())
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		if ctx.Err() == nil {
			answerCleartext(raw, err)
			linger(raw)
		}
		_ = raw.Close() // the handshake failed already
		if peer := peerOf(raw); !s.id.refuse(inHandshake, peer, err) {
			s.id.log.Debug("handshake broken off", "peer", peer, "err", err)
		}
		return nil, err
	}
	c.peer = s.newPeerState(conn.ConnectionState(), time.Now())
	s.conns.add(c)
	// The standard is from before the handshake. If it changed meanwhile, the peer may have passed by the old one.
	if s.currentEpoch() != std {
		s.reevaluateConn(c, time.Now())
		s.reauthorize(c)
	}
	return conn, nil
}

// answerCleartext tells a client that speaks HTTP without TLS so, in the words
// that net/http has for it where it runs the handshake.
func answerCleartext(raw net.Conn, err error) {
	var header tls.RecordHeaderError
	if !errors.As(err, &header) || header.Conn == nil {
		return
	}
	switch string(header.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		if raw.SetWriteDeadline(time.Now().Add(lingerTime)) == nil {
			_, _ = io.WriteString(raw, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n") // a courtesy
		}
	}
}

// linger gives a refused peer a moment to read the alert that says why, and to
// close: closing first, with data unread, resets the connection, and a reset
// discards what is under way to the peer. A TLS 1.3 client has sent its first
// request by then.
func linger(raw net.Conn) {
	if raw.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = io.CopyN(io.Discard, raw, lingerBytes) // whatever it is, it was refused
	}
}

func (m *connTracker) add(c *serverConn) {
	m.mu.Lock()
	m.conns[c] = struct{}{}
	start, early := !m.monitoring, earlier(c.peer.ends, time.Now().Add(reauthorizeEvery)).Before(m.next)
	m.monitoring = true
	m.mu.Unlock()
	if start {
		c.server.id.startMonitoring(c.server)
	}
	if early {
		select {
		case m.changed <- struct{}{}:
		default:
		}
	}
}

// scheduleNext notes when the connections will be looked at again.
func (m *connTracker) scheduleNext(next time.Time) {
	m.mu.Lock()
	m.next = next
	m.mu.Unlock()
}

// rest notes that there is nothing to look at before next, unless a connection
// was added meanwhile: then it returns when that one is due.
func (m *connTracker) rest(next time.Time) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.conns) == 0 {
		m.next = next
	}
	return m.next
}

func (m *connTracker) all() []*serverConn {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*serverConn, 0, len(m.conns))
	for c := range m.conns {
		all = append(all, c)
	}
	return all
}

// Close is called by the tls.Conn above.
func (c *serverConn) Close() error {
	if c.untrack() && !c.due().IsZero() {
		c.server.id.drained.Add(1)
	}
	return c.Conn.Close()
}

// cut ends a connection under its user.
func (c *serverConn) cut(why error) {
	if !c.untrack() {
		return
	}
	id := c.server.id
	id.forced.Add(1)
	if peer := peerOf(c); !id.refuse(onConnection, peer, why) {
		id.log.Warn("connection cut", "peer", peer, "err", why)
	}
	_ = c.Conn.Close() // over in any case
}

// untrack takes the connection off the list, and reports whether it was on it.
func (c *serverConn) untrack() bool {
	m := &c.server.conns
	m.mu.Lock()
	defer m.mu.Unlock()
	_, listed := m.conns[c]
	delete(m.conns, c)
	return listed
}

// due is when the connection is to be cut, zero while it need not be.
func (c *serverConn) due() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cutAt
}

// evaluate returns the verdict on the certificate by g, which is the last one if
// neither the generation nor, by the end of the peer, the time has changed it.
// It notes a verdict that is no cut, and returns when to look again.
func (c *serverConn) evaluate(g *Generation, now time.Time) (v decision, next time.Time) {
	c.mu.Lock()
	known, drain, cutAt := c.gen == g && (c.drain != nil || now.Before(c.peer.ends)), c.drain, c.cutAt
	c.mu.Unlock()
	switch {
	case known && drain == nil:
		return decision{}, c.peer.ends
	case known:
		return decision{drain: drain}, cutAt
	}
	v = g.evaluate(c.peer, now)
	if v.cut != nil { // whoever asked ends the connection
		return v, now
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen, c.drain = g, v.drain
	switch {
	case v.drain == nil:
		c.cutAt = time.Time{} // also when a root that was missing is back
		return v, c.peer.ends
	case c.cutAt.IsZero(): // the grace begins with whoever notices first
		c.cutAt = now.Add(c.server.opts.DrainTimeout)
	}
	return v, c.cutAt
}

// monitorConnections looks at the connections until the identity closes: when a generation
// comes up, when one is due, and each second while any are open, for the rules
// of Authorize change without a word, and timers stand still while a machine
// sleeps. Without connections it sleeps.
func (s *Server) monitorConnections() {
	for {
		n := s.id.current.Load()
		next := s.reevaluateAll()
		t := time.NewTimer(time.Until(next))
		select {
		case <-t.C:
		case <-s.conns.changed:
		case <-n.replaced:
		case <-s.id.ctx.Done():
			t.Stop()
			return
		}
		t.Stop()
	}
}

// startMonitoring notes that s has connections, and looks after them unless the identity is over.
func (id *Identity) startMonitoring(s *Server) {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.serving = append(id.serving, s)
	if !id.closed {
		id.wg.Go(s.monitorConnections)
	}
}

// reevaluateAll looks at each connection once, and returns when to do so again. The
// certificates come first: an Authorize that hangs must not keep a revoked peer.
func (s *Server) reevaluateAll() (next time.Time) {
	began := time.Now()
	s.conns.scheduleNext(began.Add(reauthorizeEvery)) // before the list is read: what comes later compares itself to this
	all, ends := s.conns.all(), began.Add(noEnd)
	if len(all) == 0 {
		return s.conns.rest(ends)
	}
	for _, c := range all {
		ends = earlier(ends, s.reevaluateConn(c, began))
	}
	for _, c := range all {
		s.reauthorize(c)
	}
	// An Authorize so slow that a round takes seconds gets half of the time.
	now := time.Now()
	next = earlier(ends, now.Add(max(reauthorizeEvery-now.Sub(began), now.Sub(began))))
	s.conns.scheduleNext(next)
	return next
}

// reevaluateConn judges the certificate of a connection, acts on the verdict, and returns when to look again.
func (s *Server) reevaluateConn(c *serverConn, now time.Time) time.Time {
	v, next := c.evaluate(s.id.Current(), now)
	switch {
	case v.cut != nil:
		c.cut(v.cut)
	case v.drain != nil && !now.Before(next):
		c.cut(fmt.Errorf("draining for %s: %w", s.opts.DrainTimeout, v.drain))
	default:
		return next
	}
	return now.Add(noEnd)
}

// reauthorize asks Authorize about an open connection, and cuts it if refused.
func (s *Server) reauthorize(c *serverConn) {
	if err := s.authorize(c.peer.tls); err != nil {
		c.cut(err)
	}
}

// Reauthorize asks Authorize about each open connection now, and cuts those it
// refuses; it returns when that is done. For programs that know when their
// rules change; without it the connections are cut within about a second. It
// must not be called by Authorize itself.
func (s *Server) Reauthorize() {
	s.conns.rounds.Add(1) // before the list is read: a handshake under way compares this
	for _, c := range s.conns.all() {
		s.reauthorize(c)
	}
}
