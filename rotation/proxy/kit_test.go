package proxy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/logtest"
	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/internal/unixsocket"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/proxy"
)

// patience is how long a test waits for what must happen, on a busy machine too.
const patience = 2 * time.Minute

// Names in the certificates.
const (
	serverName = "storage"
	clientName = "ingester"
	spiffeID   = "spiffe://artstore.test/ingester"
)

// world has the identities of both ends.
type world struct {
	t                    *testing.T
	ca                   *pkitest.CA
	serverSrc, clientSrc *pkitest.Source
	serverID, clientID   *rotation.Identity
	logs                 *logtest.Buffer
	log                  *slog.Logger
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newDrainingWorld(t, 0)
}

// newDrainingWorld is newWorld with Config.DrainTimeout.
func newDrainingWorld(t *testing.T, drain time.Duration) *world {
	t.Helper()
	w := &world{t: t, ca: pkitest.NewCA(t), logs: &logtest.Buffer{}}
	w.log = slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.serverSrc, w.clientSrc = pkitest.NewSource(w.ca.Leaf(t, serverName)), pkitest.NewSource(w.client())
	w.serverID = pkitest.Open(t, rotation.Config{Source: w.serverSrc, DrainTimeout: drain})
	w.clientID = pkitest.Open(t, rotation.Config{Source: w.clientSrc, DrainTimeout: drain})
	return w
}

// client makes a certificate of the client, with a SPIFFE ID beside its name.
func (w *world) client() rotation.Material {
	return w.ca.Leaf(w.t, clientName, func(c *x509.Certificate) {
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "artstore.test", Path: "/ingester"}}
	})
}

// rotate gives both ends new certificates.
func (w *world) rotate() {
	w.t.Helper()
	w.serverSrc.Push(w.t, w.ca.Leaf(w.t, serverName))
	w.clientSrc.Push(w.t, w.client())
}

// running is a proxy that serves.
type running struct {
	addr string // HOST:PORT, or the path of a socket
	stop func() error
}

type service interface {
	Serve(context.Context, net.Listener) error
}

// run serves on ln until the test ends. A clean end is expected, unless the test has called
// stop before.
func run(t *testing.T, ln net.Listener, s service) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	r := &running{addr: ln.Addr().String()}
	stopped := false
	stop := sync.OnceValue(func() error { cancel(); return <-ended })
	r.stop = func() error { stopped = true; return stop() }
	t.Cleanup(func() {
		if err := stop(); err != nil && !stopped {
			t.Errorf("serving: %v", err)
		}
	})
	return r
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	return ln
}

func listenUnix(t *testing.T) (ln net.Listener, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	ln, err := unixsocket.Listen(t.Context(), unixsocket.Socket{Path: path})
	must(t, err)
	return ln, path
}

func address(t testing.TB, text string) proxy.Address {
	t.Helper()
	a, err := proxy.ParseAddress(text)
	must(t, err)
	return a
}

// server starts the server side in front of a service.
func (w *world) server(to string, edits ...func(*proxy.ServerConfig)) (*proxy.Server, *running) {
	w.t.Helper()
	cfg := proxy.ServerConfig{Identity: w.serverID, Allow: []string{clientName}, To: address(w.t, to), Logger: w.log, Limits: proxy.Limits{Stop: patience}}
	for _, edit := range edits {
		edit(&cfg)
	}
	s, err := proxy.NewServer(cfg)
	must(w.t, err)
	return s, run(w.t, listen(w.t), s)
}

// clientSide starts the client side in front of a server at an address of loopback.
func (w *world) clientSide(ln net.Listener, to string, edits ...func(*proxy.ClientConfig)) (*proxy.Client, *running) {
	w.t.Helper()
	cfg := proxy.ClientConfig{Identity: w.clientID, To: address(w.t, to), ServerName: serverName, Logger: w.log, Limits: proxy.Limits{Stop: patience}}
	for _, edit := range edits {
		edit(&cfg)
	}
	c, err := proxy.NewClient(cfg)
	must(w.t, err)
	w.t.Cleanup(func() { must(w.t, c.Close()) })
	return c, run(w.t, ln, c)
}

// transport is a client of its own, without our client side.
func (w *world) transport(options rotation.TransportOptions) *rotation.Transport {
	w.t.Helper()
	tr, err := w.clientID.Transport(options)
	must(w.t, err)
	w.t.Cleanup(func() { must(w.t, tr.Close()) })
	return tr
}

// dial opens a connection of mutual TLS to a server side.
func (w *world) dial(addr string, protos ...string) *tls.Conn {
	w.t.Helper()
	tr := w.transport(rotation.TransportOptions{})
	raw, err := (&net.Dialer{}).DialContext(w.t.Context(), "tcp", addr)
	must(w.t, err)
	c, err := tr.Handshake(w.t.Context(), raw, serverName, protos...)
	must(w.t, err)
	w.t.Cleanup(func() { _ = c.Close() })
	must(w.t, c.SetDeadline(time.Now().Add(patience)))
	return c
}

func http1(c *proxy.ServerConfig) { c.Protocol = proxy.HTTP }
func h2c(c *proxy.ServerConfig)   { c.Protocol = proxy.H2C }

// tcpService calls handle for each connection.
func tcpService(t *testing.T, handle func(*net.TCPConn)) string {
	t.Helper()
	ln := listen(t)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = c.Close() }()
				handle(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { _ = ln.Close(); all.Wait() })
	return ln.Addr().String()
}

// httpService serves HTTP/1.1 and h2c.
func httpService(t *testing.T, h http.Handler) string {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// plainClient is a program without TLS, with a connection for each request.
func plainClient() *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
}

func echo(c *net.TCPConn) { _, _ = io.Copy(c, c) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// await waits for a condition.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// failures returns the count of one kind.
func failures(s proxy.Stats, kind string) uint64 {
	for name, n := range s.Failures() {
		if name == kind {
			return n
		}
	}
	panic("no kind " + kind)
}

// wantAborted reads until the end, which must be an error and no regular end.
func wantAborted(t *testing.T, c io.Reader) {
	t.Helper()
	if rest, err := io.ReadAll(c); err == nil {
		t.Errorf("%q, and then a regular end", rest)
	} else if isTimeout(err) {
		t.Errorf("%q, and then no end", rest)
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}
