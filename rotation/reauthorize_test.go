package rotation_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/rotation"
)

// ceiling bounds the time until a connection is cut. It is far above the second after
// which that must happen, for machines under load.
const ceiling = 15 * time.Second

// rules is an Authorizer whose answer can be changed. It counts its calls.
type rules struct {
	denies atomic.Bool
	asked  atomic.Int64
}

func (r *rules) authorize(cs tls.ConnectionState) error {
	r.asked.Add(1)
	if r.denies.Load() {
		return rotation.ErrPeerDenied
	}
	return rotation.AllowNames("client")(cs)
}

// options with a version that never changes are those of a program whose version is wrong.
func (r *rules) options(versioned bool) rotation.ServerOptions {
	opts := rotation.ServerOptions{Authorize: r.authorize}
	if versioned {
		opts.PolicyVersion = func() string { return map[bool]string{false: "1", true: "2"}[r.denies.Load()] }
	}
	return opts
}

func testServer(t testing.TB, opts rotation.ServerOptions) (*rotation.Server, *testCA) {
	t.Helper()
	ca := newCA(t, "ca")
	s, err := open(t, rotation.Static(ca.leaf(t, "svc", nil)), 0).Server(opts)
	if err != nil {
		t.Fatal(err)
	}
	return s, ca
}

// TestDeniedRequestOverOpenConnection expects that Authorize is asked for each request,
// with and without a PolicyVersion.
func TestDeniedRequestOverOpenConnection(t *testing.T) {
	for name, c := range map[string]struct{ h2, versioned bool }{
		"HTTP/1.1": {false, false}, "HTTP/1.1 versioned": {false, true},
		"HTTP/2": {true, false}, "HTTP/2 versioned": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			var r rules
			s, ca := testServer(t, r.options(c.versioned))
			addr := run(t, s, &http.Server{Handler: s.Handler(http.HandlerFunc(whoami)), ConnContext: s.ConnContext})
			id := open(t, rotation.Static(ca.leaf(t, "client", nil)), 0)
			refused := 0
			for range 20 {
				r.denies.Store(false)
				tr := transport(t, id, rotation.TransportOptions{HTTP1Only: !c.h2})
				mustGet(t, tr, addr)
				r.denies.Store(true)
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+addr+"/", nil)
				resp, err := tr.RoundTrip(req)
				if err != nil { // the second is over, and the connection was cut
					continue
				}
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusForbidden {
					t.Fatalf("a request that Authorize refuses is answered %d", resp.StatusCode)
				}
				refused++
			}
			if refused == 0 {
				t.Error("no refused request was answered 403")
			}
		})
	}
}

// opened is an open connection as its client sees it: gone waits for its end.
type opened struct{ gone func() error }

// openers are the ways to keep a connection open without requests.
var openers = map[string]func(t *testing.T, s *rotation.Server, m rotation.Material) opened{
	"HTTP/1.1": func(t *testing.T, s *rotation.Server, m rotation.Material) opened { return openEndless(t, s, m, false) },
	"HTTP/2":   func(t *testing.T, s *rotation.Server, m rotation.Material) opened { return openEndless(t, s, m, true) },
	"hijacked": func(t *testing.T, s *rotation.Server, m rotation.Material) opened {
		addr := run(t, s, &http.Server{ConnContext: s.ConnContext, Handler: s.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		}))})
		conf := newTicketClient(addr, m).conf
		conf.NextProtos = []string{"http/1.1"}
		return openRaw(t, addr, conf, "GET / HTTP/1.1\r\nHost: svc\r\n\r\n")
	},
	"raw TLS": func(t *testing.T, s *rotation.Server, m rotation.Material) opened {
		ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l := s.Listener(ln)
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.WriteString(c, "hello\n"); _, _ = io.Copy(io.Discard, c); _ = c.Close() }()
			}
		}()
		return openRaw(t, ln.Addr().String(), newTicketClient("", m).conf, "")
	},
}

func serveEndless(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

func openEndless(t *testing.T, s *rotation.Server, m rotation.Material, h2 bool) opened {
	addr := run(t, s, &http.Server{ConnContext: s.ConnContext, Handler: s.Handler(http.HandlerFunc(serveEndless))})
	resp := start(t, transport(t, open(t, rotation.Static(m), 0), rotation.TransportOptions{HTTP1Only: !h2}), addr, "/")
	t.Cleanup(func() { _ = resp.Body.Close() })
	return opened{func() error { _, err := io.Copy(io.Discard, resp.Body); return err }}
}

func openRaw(t *testing.T, addr string, conf *tls.Config, request string) opened {
	c, err := (&tls.Dialer{Config: conf}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return opened{func() error {
		if err := c.SetReadDeadline(time.Now().Add(2 * ceiling)); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, r)
		return err
	}}
}

// TestDeniedStreamIsCut expects that an open connection ends about a second after
// Authorize begins to refuse its peer, and that it has ended when Reauthorize returns.
func TestDeniedStreamIsCut(t *testing.T) {
	for name, opener := range openers {
		for _, versioned := range []bool{false, true} {
			for _, at := range []string{"within a second", "by Reauthorize"} {
				t.Run(name+map[bool]string{true: " versioned "}[versioned]+" "+at, func(t *testing.T) {
					t.Parallel()
					var r rules
					s, ca := testServer(t, r.options(versioned))
					c := opener(t, s, ca.leaf(t, "client", nil))
					began := time.Now()
					r.denies.Store(true)
					if at == "by Reauthorize" {
						s.Reauthorize()
						if n := rotation.OpenConns(s); n != 0 {
							t.Errorf("%d connections are open after Reauthorize", n)
						}
					}
					err := c.gone()
					if took := time.Since(began); took > ceiling {
						t.Errorf("the connection ended after %s: %v", took, err)
					}
				})
			}
		}
	}
}

// TestAuthorizePanics expects that a panic of Authorize is a refusal, in a handshake,
// for a request and for an open connection, and that the server goes on.
func TestAuthorizePanics(t *testing.T) {
	var panics atomic.Bool
	s, ca := testServer(t, rotation.ServerOptions{Authorize: func(tls.ConnectionState) error {
		if panics.Load() {
			panic("a bug in the rules")
		}
		return nil
	}})
	addr := run(t, s, &http.Server{Handler: s.Handler(http.HandlerFunc(whoami)), ConnContext: s.ConnContext})
	m := ca.leaf(t, "client", nil)
	var state tls.ConnectionState
	c := rawHTTP(t, addr, m)
	_ = c.ask(t)
	state.PeerCertificates = []*x509.Certificate{m.Certificate.Leaf}
	state.VerifiedChains = [][]*x509.Certificate{{m.Certificate.Leaf, ca.root}}
	if err := s.Authorize(state); err != nil {
		t.Errorf("before the panic: %v", err)
	}
	panics.Store(true)
	if err := s.Authorize(state); !errors.Is(err, rotation.ErrPeerDenied) {
		t.Errorf("a panic yields %v", err)
	}
	s.Reauthorize()
	if n := rotation.OpenConns(s); n != 0 {
		t.Errorf("%d connections are open after a panic", n)
	}
	if admitted(t, addr, m) {
		t.Error("a handshake passed whose Authorize panicked")
	}
	panics.Store(false)
	if !admitted(t, addr, m) {
		t.Error("refused after the panic")
	}
}

// admitted reports whether a new connection gets an answer.
func admitted(t *testing.T, addr string, m rotation.Material) bool {
	t.Helper()
	_, err := get(t, transport(t, open(t, rotation.Static(m), 0), rotation.TransportOptions{}), addr)
	return err == nil
}

// TestPolicyVersionPanics expects that a panic of PolicyVersion refuses the handshake,
// and that the server goes on.
func TestPolicyVersionPanics(t *testing.T) {
	var panics atomic.Bool
	panics.Store(true)
	s, ca := testServer(t, rotation.ServerOptions{Authorize: rotation.AllowNames("client"), PolicyVersion: func() string {
		if panics.Load() {
			panic("a bug in the rules")
		}
		return ""
	}})
	addr := run(t, s, &http.Server{Handler: s.Handler(http.HandlerFunc(whoami)), ConnContext: s.ConnContext})
	m := ca.leaf(t, "client", nil)
	if admitted(t, addr, m) {
		t.Error("a handshake passed whose PolicyVersion panicked")
	}
	panics.Store(false)
	if !admitted(t, addr, m) {
		t.Error("refused after the panic")
	}
}

// TestAuthorizeIsNotAskedForNothing expects that Authorize is not called while there is
// no open connection.
func TestAuthorizeIsNotAskedForNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	var r rules
	s, ca := testServer(t, r.options(false))
	addr := run(t, s, &http.Server{Handler: s.Handler(http.HandlerFunc(whoami)), ConnContext: s.ConnContext})
	c := rawHTTP(t, addr, ca.leaf(t, "client", nil))
	before := r.asked.Load()
	waitFor(t, "a second look", func() bool { return r.asked.Load() >= before+2 })
	_ = c.conn.Close()
	waitFor(t, "the end of the connection", func() bool { return rotation.OpenConns(s) == 0 })
	waitFor(t, "the server at rest", func() bool { return rotation.Rests(s) })
}

// TestSlowAuthorizeHoldsUpNobody expects that a revoked peer is cut, and that other
// peers can connect and close, while Authorize hangs for one peer.
func TestSlowAuthorizeHoldsUpNobody(t *testing.T) {
	ca := newCA(t, "ca")
	m := taking(ca.leaf(t, "svc", nil), ca.crl(t, -2))
	src := newPushed(m)
	id := open(t, src, 0)
	var slow atomic.Bool
	free := make(chan struct{})
	var hangs atomic.Int32
	s, err := id.Server(rotation.ServerOptions{Authorize: func(cs tls.ConnectionState) error {
		if slow.Load() && cs.PeerCertificates[0].DNSNames[0] == "slow" {
			hangs.Add(1)
			<-free
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	addr := run(t, s, &http.Server{Handler: s.Handler(http.HandlerFunc(whoami)), ConnContext: s.ConnContext})
	revoked := ca.leaf(t, "revoked", nil)
	rawHTTP(t, addr, ca.leaf(t, "slow", nil))
	waitFor(t, "the slow peer", func() bool { return rotation.OpenConns(s) == 1 })
	slow.Store(true)
	waitFor(t, "a look that hangs", func() bool { return hangs.Load() > 0 })
	c := rawHTTP(t, addr, revoked) // others connect
	_ = c.ask(t)
	_ = c.conn.Close()
	waitFor(t, "the end of the other", func() bool { return rotation.OpenConns(s) == 1 })
	c = rawHTTP(t, addr, revoked)
	_ = c.ask(t) // the server's side of the handshake is over, too
	src.mustPush(t, taking(m, ca.crl(t, -1, revoked)))
	if _, err := io.WriteString(c.conn, "GET / HTTP/1.1\r\nHost: svc\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(c.conn)
	if !strings.Contains(string(answer), "403") {
		t.Errorf("a revoked peer is answered %q", answer)
	}
	close(free)
}

// TestReauthorizeSeesHandshakes expects that a peer whose handshake was judged by the
// old rules while Reauthorize ran is cut.
func TestReauthorizeSeesHandshakes(t *testing.T) {
	var r rules
	var reauthorize func()
	opts := r.options(false)
	ask := opts.Authorize
	opts.Authorize = func(cs tls.ConnectionState) error {
		err := ask(cs)
		if !r.denies.Swap(true) {
			reauthorize()
		}
		return err
	}
	ca := newCA(t, "ca")
	s, err := open(t, rotation.Static(ca.leaf(t, "svc", nil)), 0).Server(opts)
	if err != nil {
		t.Fatal(err)
	}
	reauthorize = s.Reauthorize
	near, far := tcpPair(t)
	go func() {
		c := tls.Client(far, newTicketClient("", ca.leaf(t, "client", nil)).conf)
		_ = c.HandshakeContext(context.Background())
	}()
	if _, err := s.Handshake(t.Context(), near); err != nil {
		t.Fatalf("the handshake passes by the rules it was asked by: %v", err)
	}
	if n := rotation.OpenConns(s); n != 0 {
		t.Error("the connection of a refused peer lives")
	}
}
