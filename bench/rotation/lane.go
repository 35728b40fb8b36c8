package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc/test/bufconn"
)

const (
	inMemory = "mem"
	loopback = "tcp"
	pipeSize = 16 << 10 // more than a handshake and its tickets: nobody waits for a reader
)

// lane runs one variant: a listener of its own and one connection at a time.
type lane struct {
	variant
	listener net.Listener
	dial     func(context.Context) (net.Conn, error)
	client   *tls.Config
	done     chan error // one per connection, from the server's side
	wg       sync.WaitGroup
}

func newLane(ctx context.Context, v variant, network string) (*lane, error) {
	l := &lane{variant: v, done: make(chan error, 1)}
	switch network {
	case inMemory:
		pipe := bufconn.Listen(pipeSize)
		l.listener, l.dial = pipe, pipe.DialContext
	case loopback:
		var err error
		if l.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
			return nil, err
		}
		addr, dialer := l.listener.Addr().String(), &net.Dialer{}
		l.dial = func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", addr) }
	default:
		return nil, fmt.Errorf("unknown network %q, want %s or %s", network, inMemory, loopback)
	}
	l.wg.Go(func() { l.serve(ctx) })
	return l, nil
}

func (l *lane) shutdown() {
	_ = l.listener.Close() // ends serve
	l.wg.Wait()
	close(l.done)
}

func (l *lane) serve(ctx context.Context) {
	for {
		raw, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.done <- l.echo(ctx, raw)
	}
}

// greeting is what a client says; a real HTTP server answers it as well.
const greeting = "GET / HTTP/1.0\r\n\r\n"

// echo answers one byte, so that a client knows the verdict of a TLS 1.3 server
// and has read its tickets.
func (l *lane) echo(ctx context.Context, raw net.Conn) error {
	defer func() { _ = raw.Close() }() // the peer has what it wanted
	conn, err := l.handshake(ctx, raw)
	if err != nil {
		return err
	}
	var b [64]byte
	if _, err := conn.Read(b[:]); err != nil {
		return err
	}
	_, err = conn.Write(b[:1])
	_ = conn.Close() // the client may have closed before
	return err
}

// shake is one connection: dial, handshake on both sides, a word there, a byte back.
func (l *lane) shake(ctx context.Context, client *tls.Config) (resumed bool, err error) {
	raw, err := l.dial(ctx)
	if err != nil {
		return false, err
	}
	conn := tls.Client(raw, client)
	resumed, err = ping(ctx, conn)
	_ = conn.Close() // both ends may close at once
	return resumed, errors.Join(err, <-l.done)
}

func ping(ctx context.Context, conn *tls.Conn) (resumed bool, err error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		return false, err
	}
	if _, err := conn.Write([]byte(greeting)); err != nil {
		return false, err
	}
	var b [1]byte
	_, err = conn.Read(b[:])
	return conn.ConnectionState().DidResume, err
}
