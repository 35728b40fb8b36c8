package rotation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/internal/connlimit"
	"github.com/artstore/artstore-pki/internal/lograte"
)

// Limits of HTTPServer and Serve.
const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10
	maxStreams        = 100              // per HTTP/2 connection
	stallTimeout      = 30 * time.Second // without a byte of a request body, or of an answer
)

// Serve answers HTTP/1.1 and HTTP/2 on ln with h until ctx ends, and closes ln.
// Then requests under way may finish for ServerOptions.DrainTimeout, after which
// they are cut. It returns nil after a clean end, an error that matches
// [context.DeadlineExceeded] if requests were cut, or the error of ln.
//
// It is [Server.HTTPServer] and [Server.Listener] together. In addition, a peer
// that takes no byte of an answer for 30 s is cut, and open connections are
// limited by ServerOptions.MaxConns. Connections that h hijacked are not waited for.
func (s *Server) Serve(ctx context.Context, ln net.Listener, h http.Handler) error {
	if h == nil {
		return errors.Join(errors.New("serving HTTP: the handler is missing"), ln.Close())
	}
	srv := s.HTTPServer(h)
	srv.BaseContext = func(net.Listener) context.Context { return context.WithoutCancel(ctx) } // requests outlive ctx
	done := make(chan error, 1)
	go func() { done <- srv.Serve(s.Listener(stallListener{s.limited(ln)})) }()
	select {
	case err := <-done:
		return fmt.Errorf("serving HTTP: %w", errors.Join(err, srv.Close()))
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.DrainTimeout)
	defer cancel()
	err := srv.Shutdown(grace)
	if err != nil {
		err = errors.Join(fmt.Errorf("cutting requests after %s: %w", s.opts.DrainTimeout, err), srv.Close())
	}
	if served := <-done; !errors.Is(served, http.ErrServerClosed) { // that one says that Shutdown was called
		err = errors.Join(err, served)
	}
	if err != nil {
		return fmt.Errorf("serving HTTP: %w", err)
	}
	return nil
}

// limited returns a listener that keeps to the caps of the options.
func (s *Server) limited(ln net.Listener) net.Listener {
	caps := connlimit.Caps{Total: s.opts.MaxConns, PerAddress: s.opts.MaxConnsPerAddress}
	lines := &lograte.Gate{}
	return connlimit.Listen(ln, func() connlimit.Caps { return caps }, func(from netip.Prefix) {
		if n := lines.Pass(time.Now()); n > 0 {
			s.id.log.Warn("an address has as many connections as it may", "address", from.String(), "count", n)
		}
	})
}

// HTTPServer returns a server for [Server.Listener] that answers with h behind
// [Server.Handler]. Its limits: 10 s for the header of a request and 32 KiB for its size,
// 30 s without a byte of a request body while h reads it, 2 min for an idle connection,
// 100 open requests of an HTTP/2 connection. The whole of a body may take any time, so
// large uploads work; h limits its size. h should not set read deadlines.
func (s *Server) HTTPServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           s.Handler(watchBodies(h)),
		ConnContext:       s.ConnContext,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, WriteByteTimeout: stallTimeout},
		ErrorLog:          slog.NewLogLogger(s.id.log.Handler(), slog.LevelDebug),
	}
}

// watchBodies limits the time without a byte of a body. http.Server.ReadTimeout would
// limit the time of a whole body.
func watchBodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body == nil || r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		b := &watchedBody{ReadCloser: r.Body, deadline: http.NewResponseController(w)}
		r.Body = b
		defer b.leave()
		next.ServeHTTP(w, r)
	})
}

// watchedBody sets a read deadline for the time of each Read. Between reads there is
// none: in HTTP/2 a deadline that passes ends the body even if no Read is waiting. A
// reverse proxy may call Read in another goroutine, and after its handler has returned.
type watchedBody struct {
	io.ReadCloser

	mu       sync.Mutex               // guards the fields below
	deadline *http.ResponseController // nil once the handler has returned: net/http sets deadlines then
	ended    bool
}

func (b *watchedBody) Read(p []byte) (n int, err error) {
	b.set(time.Now().Add(stallTimeout))
	n, err = b.ReadCloser.Read(p)
	if err != nil {
		b.mu.Lock()
		b.ended = true
		b.mu.Unlock()
	}
	if err == nil || errors.Is(err, io.EOF) { // after other errors it stays, because net/http reads the rest
		b.set(time.Time{})
	}
	return n, err
}

func (b *watchedBody) set(at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.deadline != nil {
		_ = b.deadline.SetReadDeadline(at) // fails with foreign servers only, which have limits of their own
	}
}

// leave is called when the handler has returned.
func (b *watchedBody) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended { // net/http reads some of the rest before it sets the deadline of the next request
		_ = b.deadline.SetReadDeadline(time.Now().Add(stallTimeout))
	}
	b.deadline = nil
}

// stallListener accepts connections on which each single write has a time limit.
// http.Server.WriteTimeout would limit the time of a whole answer, however large.
type stallListener struct{ net.Listener }

func (l stallListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &stallConn{Conn: c}, nil
}

// stallConn is the connection under crypto/tls, which writes a record of 16 KiB at most
// at a time.
type stallConn struct {
	net.Conn
	mu       sync.Mutex // guards deadline, and the order of two changes
	deadline time.Time  // of writes, as the user of the connection has set it
}

func (c *stallConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *stallConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return c.Conn.SetWriteDeadline(t)
}

func (c *stallConn) Write(p []byte) (int, error) {
	if err := c.limit(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// limit sets the deadline of the next write: stallTimeout, or that of the user if it is
// earlier.
func (c *stallConn) limit() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	until := time.Now().Add(stallTimeout)
	if !c.deadline.IsZero() {
		until = earlier(until, c.deadline)
	}
	return c.Conn.SetWriteDeadline(until)
}
