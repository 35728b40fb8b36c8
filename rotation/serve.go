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
// [Server.Handler], and ends what a peer does too slowly: a header after 10 s, a
// request body of which no byte comes for 30 s while h reads it, an idle
// connection after 2 min. Headers have 32 KiB, an HTTP/2 connection has 100 open
// requests. A body may take any time in all, so large uploads work; h limits its
// size. h should set no read deadlines of its own.
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

// watchBodies is in place of http.Server.ReadTimeout, which bounds a whole body.
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

// watchedBody has a deadline while it is read, and none between: in HTTP/2 a
// deadline that passes ends the body although nobody waits for it. A reverse proxy
// may read it in another goroutine, and still after its handler has returned.
type watchedBody struct {
	io.ReadCloser

	mu       sync.Mutex               // guards what follows
	deadline *http.ResponseController // nil once the handler has returned, for then it is net/http's again
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
	if err == nil || errors.Is(err, io.EOF) { // else it stays, for net/http would wait for the rest
		b.set(time.Time{})
	}
	return n, err
}

func (b *watchedBody) set(at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.deadline != nil {
		_ = b.deadline.SetReadDeadline(at) // a server that cannot is not ours
	}
}

// leave ends the handler's time with the body.
func (b *watchedBody) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended { // net/http reads some of the rest before the next request, and sets a deadline for that one
		_ = b.deadline.SetReadDeadline(time.Now().Add(stallTimeout))
	}
	b.deadline = nil
}

// stallListener accepts connections that give up when a write makes no progress.
// http.Server.WriteTimeout would bound a whole answer, however large.
type stallListener struct{ net.Listener }

func (l stallListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &stallConn{Conn: c}, nil
}

// stallConn lies under crypto/tls, which writes a record of at most 16 KiB at a time.
type stallConn struct {
	net.Conn
	mu       sync.Mutex
	deadline time.Time // as set from above
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

func (c *stallConn) limit() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	until := time.Now().Add(stallTimeout)
	if !c.deadline.IsZero() {
		until = earlier(until, c.deadline)
	}
	return c.Conn.SetWriteDeadline(until)
}
