package rotation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
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

// connTracker has the open connections of a Server.
type connTracker struct {
	mu         sync.Mutex // guards conns, monitoring and next
	conns      map[*serverConn]struct{}
	monitoring bool          // monitorConnections runs
	next       time.Time     // when it evaluates the connections again; far away while there is none
	changed    chan struct{} // capacity 1: a connection was added that is due earlier
	rounds     atomic.Uint64 // calls of Reauthorize
}

// serverConn is the connection under the *tls.Conn of an accepted connection.
type serverConn struct {
	net.Conn
	server *Server
	opened uint64              // number of the generation in effect when the handshake began
	shown  []*x509.Certificate // the issuers of the own certificate then
	peer   peerState

	mu    sync.Mutex  // guards the fields below; never held across I/O or Authorize
	gen   *Generation // by which the certificate was judged last
	drain error       // the result: why the connection is draining, or nil
	cutAt time.Time   // when a draining connection is cut, else zero
}

// NetConn returns the accepted connection below, as tls.Conn does: a listener below this
// one finds its own connection again.
func (c *serverConn) NetConn() net.Conn { return c.Conn }

// policyEpoch changes when peers that were admitted before must be judged again.
type policyEpoch struct {
	gen    *Generation
	rounds uint64 // calls of Reauthorize
}

func (s *Server) currentEpoch() policyEpoch {
	return policyEpoch{s.id.Current(), s.conns.rounds.Load()}
}

// Handshake runs the server's side of a handshake on raw, within ctx and 10 s, and
// monitors the connection from then on. It closes raw on errors, and counts a refused peer
// in RefusedPeers of [Identity.Status]. It is for servers that accept connections by other
// means than a listener; [Server.Listener] uses it.
func (s *Server) Handshake(ctx context.Context, raw net.Conn) (*tls.Conn, error) {
	epoch := s.currentEpoch()
	c := &serverConn{Conn: raw, server: s, opened: epoch.gen.number, shown: epoch.gen.own.chain[1:], gen: epoch.gen}
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
	// If the epoch changed during the handshake, the peer may have been judged by the old one.
	if s.currentEpoch() != epoch {
		s.reevaluateConn(c, time.Now())
		s.reauthorize(c)
	}
	return conn, nil
}

// answerCleartext tells a client that it speaks HTTP without TLS, as net/http does where
// it runs the handshake.
func answerCleartext(raw net.Conn, err error) {
	header, ok := errors.AsType[tls.RecordHeaderError](err)
	if !ok || header.Conn == nil {
		return
	}
	switch string(header.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		if raw.SetWriteDeadline(time.Now().Add(lingerTime)) == nil {
			_, _ = io.WriteString(raw, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n") // a courtesy
		}
	}
}

// linger gives a refused peer time to read the alert that says why. A TLS 1.3 client has
// sent its first request by then. If the server closed the connection with that data
// unread, TCP would reset the connection, and a reset discards the alert on its way.
func linger(raw net.Conn) {
	if raw.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = io.CopyN(io.Discard, raw, lingerBytes) // the peer is refused whatever it sends
	}
}

// add tracks c. It starts the monitor with the first connection, and wakes it if c is due
// before its next round.
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

// scheduleNext records when the connections are evaluated again.
func (m *connTracker) scheduleNext(next time.Time) {
	m.mu.Lock()
	m.next = next
	m.mu.Unlock()
}

// rest records that nothing is to do before next, if there is no connection. It returns
// next, or an earlier moment if a connection was added meanwhile.
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

// cut closes a connection that is in use, once, and counts and logs why.
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

// due returns when a draining connection is cut, zero for others.
func (c *serverConn) due() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cutAt
}

// evaluate decides about the certificate of the peer by g, and returns when to evaluate
// again. The last decision is used again if it was made by g and the certificate has not
// expired since. A cut is not recorded: the caller ends the connection.
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
	if v.cut != nil {
		return v, now
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen, c.drain = g, v.drain
	switch {
	case v.drain == nil:
		c.cutAt = time.Time{} // also when a root that was missing is back
		return v, c.peer.ends
	case c.cutAt.IsZero(): // draining begins now
		c.cutAt = now.Add(c.server.opts.DrainTimeout)
	}
	return v, c.cutAt
}

// monitorConnections evaluates the connections until the identity closes: when a
// generation is published, when a connection is due, and each second while one is open.
// Each second, because the rules of Authorize may change at any time, and because timers
// stop while a machine is suspended.
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

// startMonitoring starts the monitor of s, unless the identity is closed.
func (id *Identity) startMonitoring(s *Server) {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.serving = append(id.serving, s)
	if !id.closed {
		id.wg.Go(s.monitorConnections)
	}
}

// reevaluateAll evaluates each connection once, and returns when to do so again. The
// certificates come first, so that a slow Authorizer does not delay the cut of a revoked
// peer.
func (s *Server) reevaluateAll() (next time.Time) {
	began := time.Now()
	s.conns.scheduleNext(began.Add(reauthorizeEvery)) // before the list is read: add compares later connections with it
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
	// If Authorize is so slow that a round takes more than a second, the pause is as long as the round.
	now := time.Now()
	next = earlier(ends, now.Add(max(reauthorizeEvery-now.Sub(began), now.Sub(began))))
	s.conns.scheduleNext(next)
	return next
}

// reevaluateConn evaluates one connection, cuts it if it must be cut now, and returns when
// to evaluate it again.
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

// isOfAnotherIssuer reports whether the own certificate has other issuers now than at the
// handshake of c.
func (c *serverConn) isOfAnotherIssuer(g *Generation) bool {
	return !slices.EqualFunc(c.shown, g.own.chain[1:], (*x509.Certificate).Equal)
}

// reauthorize asks Authorize about an open connection, and cuts it if refused.
func (s *Server) reauthorize(c *serverConn) {
	if err := s.authorize(c.peer.tls); err != nil {
		c.cut(err)
	}
}

// Reauthorize asks Authorize about each open connection now, cuts those that it refuses,
// and returns when that is done. It is for programs that know when their rules change;
// without it, connections are cut within about a second. Authorize must not call it.
func (s *Server) Reauthorize() {
	s.conns.rounds.Add(1) // before the list is read: a handshake under way compares this
	for _, c := range s.conns.all() {
		s.reauthorize(c)
	}
}
