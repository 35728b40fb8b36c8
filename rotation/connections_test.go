package rotation_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/status"
)

// listenServer serves h with all that a Server does for net/http.
func listenServer(t testing.TB, id *rotation.Identity, opts rotation.ServerOptions, h http.HandlerFunc) string {
	t.Helper()
	s, err := id.Server(opts)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, s, &http.Server{Handler: s.Handler(h), ConnContext: s.ConnContext})
}

func run(t testing.TB, s *rotation.Server, srv *http.Server) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv.ReadHeaderTimeout, srv.ErrorLog = 10*time.Second, slog.NewLogLogger(slog.DiscardHandler, 0)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(s.Listener(ln)) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return ln.Addr().String()
}

func start(t testing.TB, rt http.RoundTripper, addr, path string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// TestDrainUnderLoad drains connections all the time, under load. No request that can be
// repeated fails. A stream that never ends is cut after the drain timeout, and the log
// says so.
func TestDrainUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(name, func(t *testing.T) {
			ca := newCA(t, "ca")
			var log logs
			id, err := rotation.Open(t.Context(), rotation.Config{Source: rotation.Static(ca.leaf(t, "svc", nil)), Logger: log.logger()})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = id.Close() }()
			addr := listenServer(t, id, rotation.ServerOptions{
				Authorize: rotation.AllowNames("client"), MaxAge: 50 * time.Millisecond, DrainTimeout: 2 * time.Second,
			}, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/endless" {
					_ = http.NewResponseController(w).Flush()
					<-r.Context().Done()
					return
				}
				whoami(w, r)
			})
			tr := transport(t, open(t, rotation.Static(ca.leaf(t, "client", nil)), 0), rotation.TransportOptions{HTTP1Only: !h2})
			endless := start(t, tr, addr, "/endless")
			defer func() { _ = endless.Body.Close() }()
			var replayable, others load
			var wg sync.WaitGroup
			stop := make(chan struct{})
			for range 4 {
				wg.Go(func() { replayable.run(stop, func() error { _, err := get(t, tr, addr); return err }) })
				wg.Go(func() { others.run(stop, func() error { return post(t, tr, addr) }) })
			}
			if _, err := endless.Body.Read(make([]byte, 1)); err == nil {
				t.Error("the endless stream has an end of its own")
			}
			waitFor(t, "load", func() bool { return replayable.done.Load() > 500 && id.Status().Drained >= 20 })
			close(stop)
			wg.Wait()
			if n := replayable.failed.Load(); n != 0 {
				t.Errorf("%d replayable requests failed", n)
			}
			// A POST on a connection that is cut at the same moment cannot be repeated by net/http.
			if f, n := others.failed.Load(), others.done.Load(); f*50 > n {
				t.Errorf("%d of %d other requests failed", f, n)
			}
			t.Logf("%d replayable requests, %d failed; %d others, %d failed; %d connections drained, %d cut",
				replayable.done.Load(), replayable.failed.Load(), others.done.Load(), others.failed.Load(), id.Status().Drained, id.Status().Forced)
			if !strings.Contains(log.String(), "connection cut") || !strings.Contains(log.String(), "draining for 2s") {
				t.Error("the log says nothing about the cut")
			}
			if refused := id.Status().RefusedPeers; refused != (status.RefusedPeers{}) {
				t.Errorf("age counts as a refusal: %+v", refused)
			}
		})
	}
}

type load struct{ done, failed atomic.Int64 }

func (l *load) run(stop <-chan struct{}, request func() error) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		if request() != nil {
			l.failed.Add(1)
		}
		l.done.Add(1)
	}
}

func post(t testing.TB, rt http.RoundTripper, addr string) error {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+addr+"/", strings.NewReader("x"))
	if err != nil {
		return err
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return errors.Join(err, resp.Body.Close())
}

// TestExpiredPeerDrains expects that the client is told with its next answer, and is cut
// after the drain timeout if it sends no request.
func TestExpiredPeerDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, network := newCA(t, "ca"), pkitest.NewNetwork()
		id := open(t, rotation.Static(ca.leaf(t, "svc", nil)), 0)
		s, err := id.Server(rotation.ServerOptions{Authorize: rotation.AllowNames("client"), DrainTimeout: time.Second})
		must(t, err)
		srv := &http.Server{Handler: s.Handler(http.HandlerFunc(whoami)), ConnContext: s.ConnContext, ReadHeaderTimeout: 10 * time.Second}
		t.Cleanup(func() { _ = srv.Close() })
		go func() { _ = srv.Serve(s.Listener(network)) }()
		soon := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(2 * time.Second) }
		asks := ca.leaf(t, "client", soon)
		connect := func(m rotation.Material) *tls.Conn {
			raw, err := network.Dial(t.Context(), "tcp", "svc")
			must(t, err)
			conf := newTicketClient("", m).conf
			conf.NextProtos = []string{"http/1.1"}
			c := tls.Client(raw, conf)
			t.Cleanup(func() { _ = raw.Close() })
			must(t, c.HandshakeContext(t.Context()))
			return c
		}
		silent, client := connect(ca.leaf(t, "client", soon)), rawClient{connect(asks)}
		if closes := client.ask(t); closes {
			t.Error("told to go while the certificate is valid")
		}
		time.Sleep(time.Until(asks.Certificate.Leaf.NotAfter))
		if closes := client.ask(t); !closes {
			t.Error("not told to go")
		}
		if _, err := silent.Read(make([]byte, 1)); err == nil {
			t.Error("the silent connection lives")
		}
		synctest.Wait()
		if st := id.Status(); st.Forced != 1 || st.Drained != 1 {
			t.Errorf("%d connections were cut and %d drained, want one of each", st.Forced, st.Drained)
		}
	})
}

// rawClient is HTTP/1.1 by hand over one connection, for a server's last word on it.
type rawClient struct{ conn *tls.Conn }

func rawHTTP(t testing.TB, addr string, m rotation.Material) rawClient {
	t.Helper()
	conf := newTicketClient(addr, m).conf
	conf.NextProtos = []string{"http/1.1"}
	c, err := tls.Dial("tcp", addr, conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return rawClient{c}
}

func (c rawClient) ask(t testing.TB) (closes bool) {
	t.Helper()
	if _, err := fmt.Fprintf(c.conn, "GET / HTTP/1.1\r\nHost: svc\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := c.conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(buf[:n]), "Connection: close")
}

// TestRootRemovedWhileOpen expects that a peer without a trusted root is drained, and
// that draining ends when the root is back.
func TestRootRemovedWhileOpen(t *testing.T) {
	ca, other := newCA(t, "ca"), newCA(t, "other")
	m := ca.leaf(t, "svc", nil)
	m.Roots = append(m.Roots, other.root)
	src := newPushed(m)
	id := open(t, src, 0)
	addr := listenServer(t, id, rotation.ServerOptions{Authorize: rotation.AllowNames("client"), DrainTimeout: time.Hour}, whoami)
	cm := other.leaf(t, "client", nil)
	cm.Roots = []*x509.Certificate{ca.root}
	client := rawHTTP(t, addr, cm)
	if client.ask(t) {
		t.Error("told to go before anything happened")
	}
	without := m
	without.Roots = m.Roots[:1]
	src.mustPush(t, without)
	src.mustPush(t, m)
	if client.ask(t) {
		t.Error("told to go although the root is back")
	}
	src.mustPush(t, without)
	if !client.ask(t) {
		t.Error("not told to go")
	}
}

// TestDeniedWhileOpen expects that a changed policy counts for the next request of an
// open connection.
func TestDeniedWhileOpen(t *testing.T) {
	ca := newCA(t, "ca")
	var policy atomic.Value
	policy.Store("client")
	opts := rotation.ServerOptions{
		Authorize:     func(cs tls.ConnectionState) error { return rotation.AllowNames(policy.Load().(string))(cs) },
		PolicyVersion: func() string { return policy.Load().(string) },
	}
	id := open(t, rotation.Static(ca.leaf(t, "svc", nil)), 0)
	addr := listenServer(t, id, opts, whoami)
	tr := transport(t, open(t, rotation.Static(ca.leaf(t, "client", nil)), 0), rotation.TransportOptions{HTTP1Only: true})
	mustGet(t, tr, addr)
	policy.Store("somebody else")
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+addr+"/", nil)
	resp, err := tr.RoundTrip(req)
	if err != nil { // the connection was evaluated and cut before the request; a new one was refused
		t.Logf("denied peer: %v", err)
		return
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden || !resp.Close {
		t.Errorf("denied peer: status %d, close %v", resp.StatusCode, resp.Close)
	}
}

// TestHandlerAlone uses Handler without Listener and ConnContext: it judges peers by the
// TLS state of the request.
func TestHandlerAlone(t *testing.T) {
	ca := newCA(t, "ca")
	m := taking(ca.leaf(t, "svc", nil), ca.crl(t, -2))
	src := newPushed(m)
	id := open(t, src, 0)
	s, err := id.Server(rotation.ServerOptions{Authorize: rotation.AllowNames("client"), MaxAge: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	addr := listen(t, s.TLSConfig(), s.Handler(http.HandlerFunc(whoami)))
	cm := ca.leaf(t, "client", nil)
	tr := transport(t, open(t, rotation.Static(cm), 0), rotation.TransportOptions{})
	if resp := start(t, tr, addr, "/"); resp.StatusCode != http.StatusOK || resp.Close {
		t.Errorf("status %d, close %v", resp.StatusCode, resp.Close)
	} else {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	src.mustPush(t, taking(m, ca.crl(t, -1, cm)))
	if resp := start(t, tr, addr, "/"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a revoked peer got %d", resp.StatusCode)
	}
	plain := listenPlain(t, s.Handler(http.HandlerFunc(whoami)))
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+plain, nil)
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("cleartext got %d", resp.StatusCode)
	}
}

func listenPlain(t testing.TB, h http.Handler) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return ln.Addr().String()
}

// TestRefusedPeerReadsWhy expects that the client reads the alert although it has sent
// its request already.
func TestRefusedPeerReadsWhy(t *testing.T) {
	ca := newCA(t, "ca")
	addr := listenServer(t, open(t, rotation.Static(ca.leaf(t, "svc", nil)), 0), rotation.ServerOptions{Authorize: rotation.AllowNames("client")}, whoami)
	for range 50 {
		c, err := tls.Dial("tcp", addr, newTicketClient(addr, ca.leaf(t, "stranger", nil)).conf)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(make([]byte, 16<<10))
		_, err = c.Read(make([]byte, 1))
		_ = c.Close()
		if err == nil || !strings.Contains(err.Error(), "tls: bad certificate") {
			t.Fatalf("the refused peer read %v", err)
		}
	}
}

// TestCleartextIsTold expects that a client that speaks HTTP without TLS gets an answer
// that says so. Other bytes get no answer.
func TestCleartextIsTold(t *testing.T) {
	ca := newCA(t, "ca")
	addr := listenServer(t, open(t, rotation.Static(ca.leaf(t, "svc", nil)), 0), rotation.ServerOptions{Authorize: rotation.AllowNames("client")}, whoami)
	for sent, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: svc\r\n\r\n": "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
		"EHLO client.example and so on\r\n":   "",
	} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, sent); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if err != nil || string(got) != want {
			t.Errorf("%.5q was answered %q, %v; want %q", sent, got, err, want)
		}
		_ = c.Close()
	}
}

// TestSlowHandshakes expects that peers that send nothing delay no other peer, and that
// Close does not wait for them.
func TestSlowHandshakes(t *testing.T) {
	ca := newCA(t, "ca")
	id := open(t, rotation.Static(ca.leaf(t, "svc", nil)), 0)
	s, err := id.Server(rotation.ServerOptions{Authorize: rotation.AllowNames("client")})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := s.Listener(ln)
	for range 20 {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
	}
	got := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = c.Write([]byte("x"))
			_ = c.Close()
		}
		got <- err
	}()
	if _, err := newTicketClient(ln.Addr().String(), ca.leaf(t, "client", nil)).connect(t); err != nil {
		t.Errorf("behind silent peers: %v", err)
	}
	if err := <-got; err != nil {
		t.Errorf("Accept: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
}

// brokenListener fails once before it works, like a listener of a process without free
// file descriptors.
type brokenListener struct {
	net.Listener
	failed atomic.Bool
}

func (b *brokenListener) Accept() (net.Conn, error) {
	if !b.failed.Swap(true) {
		return nil, errors.New("too many open files")
	}
	return b.Listener.Accept()
}

// TestAcceptErrorsPass expects that the caller of Accept gets an error of the listener,
// and that the next Accept works.
func TestAcceptErrorsPass(t *testing.T) {
	ca := newCA(t, "ca")
	s, err := open(t, rotation.Static(ca.leaf(t, "svc", nil)), 0).Server(rotation.ServerOptions{Authorize: rotation.AllowNames("client")})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := s.Listener(&brokenListener{Listener: ln})
	defer func() { _ = l.Close() }()
	if _, err := l.Accept(); err == nil || !strings.Contains(err.Error(), "too many open files") {
		t.Errorf("first Accept: %v", err)
	}
	go func() { _, _ = newTicketClient(ln.Addr().String(), ca.leaf(t, "client", nil)).connect(t) }()
	c, err := l.Accept()
	if err != nil {
		t.Fatalf("second Accept: %v", err)
	}
	_ = c.Close()
}

// TestRevokedDuringHandshake expects that a peer is cut if a new list revokes it while
// its handshake is checked against the old list.
func TestRevokedDuringHandshake(t *testing.T) {
	ca := newCA(t, "ca")
	m := taking(ca.leaf(t, "svc", nil), ca.crl(t, -2))
	src := newPushed(m)
	id := open(t, src, 0)
	cm := ca.leaf(t, "client", nil)
	var once sync.Once
	s, err := id.Server(rotation.ServerOptions{Authorize: func(tls.ConnectionState) error {
		once.Do(func() { src.mustPush(t, taking(m, ca.crl(t, -1, cm))) })
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	near, far := tcpPair(t)
	done := make(chan error, 1)
	go func() {
		c := tls.Client(far, newTicketClient("", cm).conf)
		err := c.HandshakeContext(t.Context())
		if err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		done <- err
	}()
	if _, err := s.Handshake(t.Context(), near); err != nil {
		t.Fatalf("the handshake itself passes by the standard it began with: %v", err)
	}
	if err := <-done; err == nil {
		t.Error("the connection of a revoked peer lives")
	}
}

func tcpPair(t testing.TB) (server, client net.Conn) {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	client, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return server, client
}

// TestInvalidateSessions expects one full handshake of each peer after the call.
func TestInvalidateSessions(t *testing.T) {
	ca := newCA(t, "ca")
	id, addr := serverFor(t, rotation.Static(ca.leaf(t, "svc", nil)), rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
	p := newTicketClient(addr, ca.leaf(t, "client", nil))
	for i, want := range []bool{false, true, false, true} {
		if i == 2 {
			id.InvalidateSessions()
		}
		if resumed, err := p.connect(t); err != nil || resumed != want {
			t.Errorf("connection %d: resumed %v, %v", i, resumed, err)
		}
	}
}

// TestServerOutlivesIdentity expects that a server goes on with the last generation
// after Close of the identity.
func TestServerOutlivesIdentity(t *testing.T) {
	ca := newCA(t, "ca")
	id, err := rotation.Open(context.Background(), rotation.Config{Source: rotation.Static(ca.leaf(t, "svc", nil)), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	addr := listenServer(t, id, rotation.ServerOptions{Authorize: rotation.AllowNames("client")}, whoami)
	_ = id.Close()
	mustGet(t, transport(t, open(t, rotation.Static(ca.leaf(t, "client", nil)), 0), rotation.TransportOptions{}), addr)
}
