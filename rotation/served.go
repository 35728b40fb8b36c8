package rotation

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// lingerTime and lingerBytes bound what is done for a peer that was refused.
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 64 << 10
)

// served are the open connections of a Server.
type served struct {
	mu      sync.Mutex
	conns   map[*servedConn]struct{}
	minding bool
	next    time.Time     // when mind looks again
	changed chan struct{} // capacity 1: there is a connection that is due earlier
}

// servedConn is what lies under the *tls.Conn of an accepted connection.
type servedConn struct {
	net.Conn
	server *Server
	opened uint64 // number of the generation in effect when the handshake began
	peer   peer

	mu       sync.Mutex // guards what follows; never held across I/O
	standard standard   // what the peer was found acceptable by
	cutAt    time.Time  // zero: not draining
}

// Handshake runs the server's side of a handshake on raw, within ctx and 10 s,
// and looks after the connection from then on. It closes raw on errors. For
// servers that get their connections from elsewhere; [Server.Listener] uses it.
func (s *Server) Handshake(ctx context.Context, raw net.Conn) (*tls.Conn, error) {
	std := s.standard()
	c := &servedConn{Conn: raw, server: s, opened: std.gen.number, standard: std}
	conn := tls.Server(c, s.Config())
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		if ctx.Err() == nil {
			answerCleartext(raw, err)
			linger(raw)
		}
		_ = raw.Close() // the handshake failed already
		return nil, err
	}
	c.peer = s.peer(conn.ConnectionState(), time.Now())
	s.served.add(c)
	// The standard is from before the handshake. If it changed meanwhile, the peer may have passed by the old one.
	if s.standard() != std {
		s.look(c, time.Now())
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

func (m *served) add(c *servedConn) {
	m.mu.Lock()
	m.conns[c] = struct{}{}
	start, early := !m.minding, c.peer.ends.Before(m.next)
	m.minding = true
	m.mu.Unlock()
	if start {
		c.server.id.serves(c.server)
	}
	if early {
		select {
		case m.changed <- struct{}{}:
		default:
		}
	}
}

// plan notes when the connections will be looked at again.
func (m *served) plan(next time.Time) {
	m.mu.Lock()
	m.next = next
	m.mu.Unlock()
}

func (m *served) all() []*servedConn {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*servedConn, 0, len(m.conns))
	for c := range m.conns {
		all = append(all, c)
	}
	return all
}

// Close is called by the tls.Conn above.
func (c *servedConn) Close() error {
	if c.leave() && !c.due().IsZero() {
		c.server.id.drained.Add(1)
	}
	return c.Conn.Close()
}

// cut ends a connection under its user.
func (c *servedConn) cut(why error) {
	if !c.leave() {
		return
	}
	id := c.server.id
	id.forced.Add(1)
	id.log.Warn("connection cut", "peer", c.RemoteAddr().String(), "err", why)
	_ = c.Conn.Close() // over in any case
}

// leave takes the connection off the list, and reports whether it was on it.
func (c *servedConn) leave() bool {
	m := &c.server.served
	m.mu.Lock()
	defer m.mu.Unlock()
	_, listed := m.conns[c]
	delete(m.conns, c)
	return listed
}

// due is when the connection is to be cut, zero while it need not be.
func (c *servedConn) due() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cutAt
}

// fine reports that the verdict by this standard would be the same as the last one, which was good.
func (c *servedConn) fine(std standard, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.standard == std && c.cutAt.IsZero() && now.Before(c.peer.ends)
}

// judged notes a verdict that is no cut, and returns when to look again; zero is never.
func (c *servedConn) judged(std standard, v verdict, now time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.standard = std
	switch {
	case v.drain == nil:
		c.cutAt = time.Time{} // also when a root that was missing is back
		return c.peer.ends
	case c.cutAt.IsZero():
		c.cutAt = now.Add(c.server.opts.DrainTimeout)
	}
	return c.cutAt
}

// mind looks at the connections until the identity closes: when a generation
// comes up, when one is due, and otherwise every 30 s, for timers stand still
// while a machine sleeps and a policy may change without a word.
func (s *Server) mind() {
	for {
		n := s.id.current.Load()
		next := time.Now().Add(maxWait)
		s.served.plan(next) // before the list is read: what comes later compares itself to this
		for _, c := range s.served.all() {
			next = earlier(next, s.look(c, time.Now()))
		}
		s.served.plan(next)
		t := time.NewTimer(time.Until(next))
		select {
		case <-t.C:
		case <-s.served.changed:
		case <-n.replaced:
		case <-s.id.ctx.Done():
			t.Stop()
			return
		}
		t.Stop()
	}
}

// look judges a connection, acts on the verdict, and returns when to look again.
func (s *Server) look(c *servedConn, now time.Time) time.Time {
	std := s.standard()
	if c.fine(std, now) {
		return c.peer.ends
	}
	v := s.judge(std.gen, c.peer, now)
	if v.cut != nil {
		c.cut(v.cut)
		return now.Add(maxWait)
	}
	next := c.judged(std, v, now)
	if v.drain != nil && !now.Before(next) {
		c.cut(fmt.Errorf("draining for %s: %w", s.opts.DrainTimeout, v.drain))
	}
	return next
}
