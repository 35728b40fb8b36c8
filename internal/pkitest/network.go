package pkitest

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// socketBuffer is how many bytes a connection of a [Network] buffers in each direction.
const socketBuffer = 64 << 10

// Network is a listener with a network in memory. It is for synctest bubbles, in which time
// does not advance while a goroutine waits for a real socket. Its connections have buffers,
// as those of TCP have and those of net.Pipe do not.
type Network struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// NewNetwork returns a network with one listener.
func NewNetwork() *Network {
	return &Network{accept: make(chan net.Conn, 1024), closed: make(chan struct{})}
}

// Accept implements [net.Listener].
func (n *Network) Accept() (net.Conn, error) {
	select {
	case c := <-n.accept:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (n *Network) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

// Addr implements [net.Listener].
func (n *Network) Addr() net.Addr { return address("server") }

// Dial connects to the listener, whatever the address, as a DialContext of others.
func (n *Network) Dial(context.Context, string, string) (net.Conn, error) {
	here, there := newSocket(), newSocket()
	select {
	case <-n.closed:
		return nil, net.ErrClosed
	case n.accept <- &conn{in: there, out: here, local: "server", remote: "client"}:
		return &conn{in: here, out: there, local: "client", remote: "server"}, nil
	}
}

type address string

func (address) Network() string  { return "memory" }
func (a address) String() string { return string(a) }

// conn is one end; in is what arrives, out is the in of the other end.
type conn struct {
	in, out       *socket
	local, remote address
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	return n, c.opError("read", err)
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	return n, c.opError("write", err)
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// opError gives an error the type that package net gives it. net/http tells by that type
// whether a connection has failed or a request is malformed.
func (c *conn) opError(op string, err error) error {
	if err == nil || err == io.EOF { //nolint:errorlint // a reader must get io.EOF itself
		return err
	}
	return &net.OpError{Op: op, Net: "memory", Source: c.local, Addr: c.remote, Err: err}
}

// Close ends both directions, the one that is written first: a reader that Close wakes
// cannot write an answer any more.
func (c *conn) Close() error {
	c.out.close(false)
	c.in.close(true)
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	c.in.reads.set(c.in, t)
	c.out.writes.set(c.out, t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error  { c.in.reads.set(c.in, t); return nil }
func (c *conn) SetWriteDeadline(t time.Time) error { c.out.writes.set(c.out, t); return nil }

// socket holds the bytes that are under way in one direction.
type socket struct {
	mu            sync.Mutex
	changed       *sync.Cond
	data          []byte
	ended, gone   bool // by the writer, by the reader
	reads, writes deadline
}

func newSocket() *socket {
	s := &socket{}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// deadline of the reader or the writer; guarded by socket.mu.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) set(s *socket, t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.at = t
	if !t.IsZero() {
		d.timer = time.AfterFunc(time.Until(t), func() {
			s.mu.Lock() // a reader that checks the deadline now must wait before the broadcast
			defer s.mu.Unlock()
			s.changed.Broadcast()
		})
	}
	s.changed.Broadcast()
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (s *socket) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.gone:
			return 0, net.ErrClosed
		case s.reads.passed():
			return 0, os.ErrDeadlineExceeded
		case len(s.data) > 0:
			n := copy(p, s.data)
			s.data = s.data[n:]
			s.changed.Broadcast()
			return n, nil
		case s.ended:
			return 0, io.EOF
		}
		s.changed.Wait()
	}
}

func (s *socket) write(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.ended:
			return n, net.ErrClosed
		case s.gone:
			return n, io.ErrClosedPipe
		case s.writes.passed():
			return n, os.ErrDeadlineExceeded
		}
		room := min(len(p), socketBuffer-len(s.data))
		s.data, p, n = append(s.data, p[:room]...), p[room:], n+room
		s.changed.Broadcast()
		if len(p) == 0 {
			return n, nil
		}
		s.changed.Wait()
	}
}

func (s *socket) close(byReader bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if byReader {
		s.gone, s.data = true, nil
	} else {
		s.ended = true
	}
	for _, d := range []*deadline{&s.reads, &s.writes} {
		if d.timer != nil {
			d.timer.Stop()
		}
	}
	s.changed.Broadcast()
}
