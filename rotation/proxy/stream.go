package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// bufferSize is what one direction of a connection holds at most, beside what the kernel and
// crypto/tls hold. It is read whole before the next read: a slow receiver slows the sender.
const bufferSize = 32 << 10

// lastWords is how long the other direction may go on when one can be written no more. A
// service may refuse what it is sent, and say why before it closes.
const lastWords = 5 * time.Second

// errIdle reports a connection without a byte for Limits.Idle.
var errIdle = errors.New("no byte for the time that a connection may be idle")

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

// errTruncated reports a connection of TLS that ended without close_notify (RFC 8446 §6.1).
// Anyone in the network can end it so. crypto/tls takes it for a regular end.
var errTruncated = errors.New("the connection ended without the close_notify of TLS")

// belowTLS is a connection whose end is an error. TLS reads it only if close_notify has not
// come before.
type belowTLS struct{ net.Conn }

// NetConn returns the connection below.
func (c belowTLS) NetConn() net.Conn { return c.Conn }

func (c belowTLS) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, io.EOF) { // an OpError, because net/http and rotation know by it that a peer has left
		err = &net.OpError{Op: "read", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: errTruncated}
	}
	return n, err
}

// side is one of the two connections of a stream.
type side struct {
	conn net.Conn
	end  func() error // ends the direction to it
	tcp  *net.TCPConn // at the bottom; nil for a Unix socket
	over func() error // closes it without the close_notify of TLS
}

// newSide looks through the layers of c: limits, TLS, and the accepted or dialled connection
// at the bottom. The first that can end one direction does so: TLS by close_notify, TCP by
// FIN. A connection without either is closed for both directions at once.
func newSide(c net.Conn) side {
	s := side{conn: c, over: c.Close}
	if secure, ok := c.(*tls.Conn); ok {
		s.over = secure.NetConn().Close
	}
	for below := c; below != nil; {
		if half, ok := below.(interface{ CloseWrite() error }); ok && s.end == nil {
			s.end = half.CloseWrite
		}
		if tcp, ok := below.(*net.TCPConn); ok {
			s.tcp = tcp
		}
		layer, ok := below.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		below = layer.NetConn()
	}
	if s.end == nil {
		s.end = c.Close
	}
	return s
}

// abort closes the connection so that the other end sees an error and no regular end: by a
// reset, and without close_notify. A Unix socket cannot tell the two apart.
func (s side) abort() {
	if s.tcp != nil {
		_ = s.tcp.SetLinger(0) // fails for a closed connection only
	}
	_ = s.over() // over in any case
}

// stream passes bytes between two connections until both directions have ended or one has
// failed.
type stream struct {
	front, back side
	idle        *idleTimer
	answered    bool // the front has been told that nothing follows

	mu   sync.Mutex // guards kind and err
	kind failure
	err  error // the first one
}

// newStream returns a stream that aborts both connections after most without a byte.
func newStream(front, back side, most time.Duration) *stream {
	s := &stream{front: front, back: back}
	s.idle = newIdleTimer(most, func() {
		s.fail(idle, errIdle)
		s.abort()
	})
	return s
}

// run returns nil if both directions ended regularly. Otherwise it aborts both connections,
// and returns which of them failed first: ofPeer for the front, broken for the back, or idle.
func (s *stream) run() (failure, error) {
	up := make(chan struct{})
	go func() {
		defer close(up)
		s.pass(s.back, s.front, ofPeer, broken)
	}()
	s.answered = s.pass(s.front, s.back, broken, ofPeer)
	<-up
	s.idle.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil || s.answered { // a reset could overtake what the front was told
		_ = s.front.conn.Close() // both directions have ended
	}
	if s.err == nil {
		_ = s.back.conn.Close()
		return 0, nil
	}
	s.abort()
	return s.kind, s.err
}

// fail records what failed first: it makes everything else fail.
func (s *stream) fail(kind failure, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.kind, s.err = kind, err
	}
}

func (s *stream) abort() {
	s.front.abort()
	s.back.abort()
}

// pass copies from one side to the other until the first ends, and then ends the direction
// to the other. reading and writing are what to call failures of each. After an error of
// reading both connections are aborted, because a regular end would pass off what has
// arrived as all. After an error of writing, what the receiver has said still goes to the
// other side. It reports whether the direction ended regularly.
func (s *stream) pass(to, from side, reading, writing failure) bool {
	readErr, writeErr := copyBytes(to.conn, from.conn, s.idle)
	if readErr == nil && writeErr == nil {
		writeErr = to.end()
	}
	switch {
	case readErr != nil:
		s.fail(reading, readErr)
		s.abort()
	case writeErr != nil:
		s.fail(writing, writeErr)
		_ = to.conn.SetReadDeadline(time.Now().Add(lastWords)) // fails for a closed connection only
	}
	return readErr == nil && writeErr == nil
}

// copyBytes copies until from ends, which is no error, or one of the two fails.
func copyBytes(to io.Writer, from io.Reader, idle *idleTimer) (readErr, writeErr error) {
	buffer := buffers.Get().(*[]byte) //nolint:forcetypeassert // New makes it
	defer buffers.Put(buffer)
	for {
		n, err := from.Read(*buffer)
		idle.touch()
		if n > 0 {
			if _, err := to.Write((*buffer)[:n]); err != nil {
				return nil, err
			}
			idle.touch()
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil, nil
		case err != nil:
			return err, nil
		}
	}
}

// idleTimer calls a function once when it was not touched for a time.
type idleTimer struct {
	most  time.Duration
	last  atomic.Int64 // in nanoseconds since began
	began time.Time
	timer *time.Timer
}

// newIdleTimer calls cut in a goroutine of its own after most without a touch.
func newIdleTimer(most time.Duration, cut func()) *idleTimer {
	t := &idleTimer{most: most, began: time.Now()}
	ready := make(chan struct{})
	t.timer = time.AfterFunc(most, func() {
		<-ready
		left := most - (time.Since(t.began) - time.Duration(t.last.Load()))
		if left > 0 {
			t.timer.Reset(left)
			return
		}
		cut()
	})
	close(ready) // timer is set
	return t
}

func (t *idleTimer) touch() { t.last.Store(int64(time.Since(t.began))) }

func (t *idleTimer) stop() { t.timer.Stop() }
