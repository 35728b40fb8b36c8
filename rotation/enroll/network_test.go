package enroll_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// network is a listener and its dialer without the kernel, for bubbles: a
// goroutine in a system call would stop their clock.
type network struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	mu    sync.Mutex
	off   bool
}

func newNetwork() *network { return &network{conns: make(chan net.Conn), done: make(chan struct{})} }

func newDownNetwork() *network {
	n := newNetwork()
	n.setDown(true)
	return n
}

func (n *network) setDown(off bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.off = off
}

func (n *network) DialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	off := n.off
	n.mu.Unlock()
	if off {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("%s: connection refused", addr)}
	}
	here, there := newPipe()
	select {
	case n.conns <- there:
		return here, nil
	case <-n.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.done:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error {
	n.once.Do(func() { close(n.done) })
	return nil
}

func (n *network) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

// pipe is one direction of a connection with a buffer: on net.Pipe a TLS 1.3
// server that writes a ticket to a client that does not read hangs.
type pipe struct {
	mu       sync.Mutex
	cond     *sync.Cond
	buf      bytes.Buffer
	closed   bool
	deadline time.Time
}

type conn struct{ in, out *pipe }

func newPipe() (net.Conn, net.Conn) {
	a, b := &pipe{}, &pipe{}
	a.cond, b.cond = sync.NewCond(&a.mu), sync.NewCond(&b.mu)
	return &conn{a, b}, &conn{b, a}
}

func (c *conn) Read(b []byte) (int, error) {
	p := c.in
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case !p.deadline.IsZero() && !time.Now().Before(p.deadline):
			return 0, timeoutError{}
		case p.buf.Len() > 0:
			return p.buf.Read(b)
		case p.closed:
			return 0, io.EOF
		}
		p.cond.Wait()
	}
}

func (c *conn) Write(b []byte) (int, error) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.out.closed {
		return 0, net.ErrClosed
	}
	defer c.out.cond.Broadcast()
	return c.out.buf.Write(b)
}

func (c *conn) Close() error {
	for _, p := range []*pipe{c.in, c.out} {
		p.mu.Lock()
		p.closed = true
		p.cond.Broadcast()
		p.mu.Unlock()
	}
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	p := c.in
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deadline = t
	if !t.IsZero() {
		time.AfterFunc(max(time.Until(t), 0), p.cond.Broadcast)
	}
	return nil
}

func (c *conn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *conn) SetWriteDeadline(time.Time) error { return nil } // writes never block
func (c *conn) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }
func (c *conn) RemoteAddr() net.Addr             { return c.LocalAddr() }

type timeoutError struct{}

func (timeoutError) Error() string   { return "i/o timeout" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }
