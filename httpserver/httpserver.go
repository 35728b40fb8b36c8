// Package httpserver runs an HTTP server with a limit on everything that an unauthenticated
// peer can make grow. With a *rotation.Server it serves mutual TLS:
//
//	server, err := identity.Server(rotation.ServerOptions{Authorize: rotation.AllowNames("ingester")})
//	err = httpserver.Serve(ctx, ln, httpserver.Config{Handler: h, Server: server})
//
// Invariants:
//
//   - The number of connections is limited, in all (TestTotalConns) and for one address or
//     IPv6 /64 (TestOneAddressAtItsCap), from accept to close, so handshakes count too
//     (TestCapCountsSilentConnections). One address cannot keep another from being answered.
//   - So are the open requests of one address (TestOpenRequestsOfOneAddress), and its
//     bodies that have not arrived (TestParkedBodies).
//   - The size of a header is limited (TestHeaderLimit), and the time for a body
//     (TestBodyTimeout), for an answer (TestStreamsWithoutWindowEnd) and without a
//     request (TestIdleConnectionEnds). The handler limits the size of bodies.
//   - A request that [Hold] holds uses up none of these, and neither does its connection
//     (TestHeldRequestsLeaveRoom); held connections have caps of their own.
//   - A detached request ([Detach]) is answered on its connection, which then goes on
//     (TestDetachedConnectionGoesOn), also while the server drains (TestDetachedAtTheEnd).
//     A client that leaves before is noticed within seconds (TestDetachedClientLeaves). No
//     connection that has come back delays the end (TestDetachedConnectionsEndAtOnce).
//   - After the end of ctx, requests under way may finish (TestDrainLetsInFlightFinish),
//     and are cut after Config.Drain (TestCutAfterDrain).
//
// A peer that grants no flow-control window (RFC 9113 §6.9) keeps a handler in its Write,
// or in the flush after it has returned. net/http resets such a stream WriteTimeout after it
// was opened. If the peer does not read from its TCP connection, the reset cannot be
// sent either: HTTP2Config.WriteByteTimeout closes that connection (TestDeafConnectionEnds).
// Over TLS a peer cannot prolong this by taking single bytes, because crypto/tls gives up a
// connection with the first record that is not written in time.
package httpserver

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Defaults of Config.
const (
	DefaultStreams = 100
	DefaultIdle    = 2 * time.Minute
	DefaultDrain   = 10 * time.Second
)

const (
	readHeaderTimeout = 10 * time.Second
	writeByteTimeout  = 15 * time.Second
	maxHeaderBytes    = 32 << 10
	smallWindow       = 64 << 10 // the least that net/http takes for a connection
)

// Config says how to serve. The zero value of every other field than Handler works.
type Config struct {
	// Handler answers requests. Required.
	Handler http.Handler
	// Server, usually a *rotation.Server, accepts over TLS, watches the accepted
	// connections and authorizes each request. nil: see TLS.
	Server Secured
	// TLS is used as it is; nil serves cleartext, for loopback listeners such as metrics.
	TLS *tls.Config
	// Conns is called at each accept, so the caps may change while the server runs.
	// nil means the defaults of [Conns].
	Conns func() Conns
	// Streams is how many requests an HTTP/2 connection may have open. 0 means 100.
	Streams int
	// Idle is how long a connection may stay open without a request. 0 means 2 min.
	Idle time.Duration
	// Drain is how long requests in flight may finish after ctx ends. 0 means 10 s.
	Drain time.Duration
	// BodyTimeout bounds the time to read one request with its body. It is for services
	// with small bodies: with it, an HTTP/2 connection may have 64 KiB that no handler
	// has read, and an address may have as many bodies that have not arrived as
	// connections. 0 means no bound, for uploads, whose handlers watch progress themselves.
	BodyTimeout time.Duration
	// WriteTimeout bounds a whole request, from the end of its header to the last byte
	// of the answer, so it must be longer than BodyTimeout. A handler with a large answer
	// extends it while the peer takes bytes: see [Paced]. 0 means no bound: handlers then
	// set deadlines themselves.
	WriteTimeout time.Duration
	// Refused is called for each connection or request over a cap of its address, with
	// [LimitConns], [LimitRequests] or [LimitBodies]. It must be fast and safe for
	// concurrent use.
	Refused func(what string)
	// Logger gets one warning a minute about addresses over their cap and, at debug
	// level, the log of net/http. nil means slog.Default.
	Logger *slog.Logger
}

// Secured is implemented by *rotation.Server.
type Secured interface {
	Listener(net.Listener) net.Listener
	Handler(http.Handler) http.Handler
	ConnContext(context.Context, net.Conn) context.Context
}

// Serve serves on ln until ctx ends, then drains. It closes ln. It returns nil
// after a clean drain, [context.DeadlineExceeded] if requests had to be cut, or
// the error that ended serving. A connection that a handler has hijacked itself is not
// waited for.
func Serve(ctx context.Context, ln net.Listener, cfg Config) error {
	if cfg.Handler == nil { // net/http would serve what is registered globally
		return errors.Join(errors.New("serving HTTP: the handler is missing"), ln.Close())
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Conns == nil {
		cfg.Conns = func() Conns { return Conns{} }
	}
	refusals := &refusals{tell: cfg.Refused, log: cfg.Logger}
	srv := newServer(cfg, refusals)
	ln = newListener(ln, cfg.Conns, refusals)
	if cfg.Server != nil {
		ln, srv.Handler, srv.ConnContext = cfg.Server.Listener(ln), cfg.Server.Handler(srv.Handler), cfg.Server.ConnContext
	} else if cfg.TLS != nil {
		srv.TLSConfig = withProtocols(cfg.TLS)
		ln = tls.NewListener(ln, srv.TLSConfig)
	}
	detached := newDetachedConns(ln.Addr())
	srv.ConnContext, srv.ConnState = withConn(srv.ConnContext, detached), detached.changed
	done := make(chan error, 2)
	go func() { done <- srv.Serve(ln) }()
	go func() { done <- srv.Serve(detached) }() // until srv ends
	var leaving sync.WaitGroup
	leaving.Go(detached.watchLeaving) // as long
	defer leaving.Wait()
	select {
	case err := <-done:
		return errors.Join(err, srv.Close(), ignoreClosed(<-done))
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), cmp.Or(cfg.Drain, DefaultDrain))
	defer cancel()
	err := srv.Shutdown(stop)
	if !detached.drain(stop.Done()) {
		err = cmp.Or(err, stop.Err())
	}
	if err != nil {
		err = errors.Join(err, srv.Close())
	}
	return errors.Join(err, ignoreClosed(<-done), ignoreClosed(<-done))
}

// ignoreClosed returns nil for the error that says that Shutdown or Close was called.
func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// withProtocols returns the configuration with HTTP/2 and HTTP/1.1, unless it names
// protocols, as http.Server.ServeTLS does.
func withProtocols(conf *tls.Config) *tls.Config {
	conf = conf.Clone()
	if len(conf.NextProtos) == 0 {
		conf.NextProtos = []string{"h2", "http/1.1"}
	}
	return conf
}

func newServer(cfg Config, refusals *refusals) *http.Server {
	h2 := &http.HTTP2Config{
		MaxConcurrentStreams: cmp.Or(cfg.Streams, DefaultStreams),
		WriteByteTimeout:     writeByteTimeout,
	}
	handler := cfg.Handler
	if cfg.BodyTimeout > 0 {
		h2.MaxReceiveBufferPerConnection, h2.MaxReceiveBufferPerStream = smallWindow, smallWindow
		handler = limitBodies(handler, cfg.Conns, refusals)
	}
	handler = limitRequests(handler, cfg.Conns, refusals)
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       cfg.BodyTimeout,
		WriteTimeout:      cfg.WriteTimeout,
		IdleTimeout:       cmp.Or(cfg.Idle, DefaultIdle),
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             h2,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
}
