package rotation_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
)

// refusingServer is a server in a synctest bubble, with its log and its counts of
// refused peers.
type refusingServer struct {
	*testCA
	src     *pushed
	mine    rotation.Material
	id      *rotation.Identity
	server  *rotation.Server
	network *pkitest.Network
	denies  atomic.Bool // Authorize refuses everybody
	panics  atomic.Bool // PolicyVersion does
	log     logs
}

func newRefusingServer(t *testing.T) *refusingServer {
	g := &refusingServer{testCA: newCA(t, "ca"), network: pkitest.NewNetwork()}
	g.mine = taking(g.leaf(t, "svc", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(24 * time.Hour) }), g.crl(t, -2))
	g.src = newPushed(g.mine)
	id, err := rotation.Open(t.Context(), rotation.Config{Source: g.src, Logger: g.log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	g.id = id
	g.server, err = id.Server(rotation.ServerOptions{
		DrainTimeout: time.Second,
		Authorize: func(cs tls.ConnectionState) error {
			if g.denies.Load() {
				return errors.New("any error is a refusal\nlevel=ERROR msg=forged")
			}
			return rotation.AllowNames("client")(cs)
		},
		PolicyVersion: func() string {
			if g.panics.Load() {
				panic("a bug in the rules")
			}
			return ""
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = g.network.Close(), id.Close() })
	return g
}

// refusedPeers wants exactly so many refusals of one reason and none of others,
// and lines of the log that stand for them.
func (g *refusingServer) refusedPeers(t *testing.T, reason string, n uint64, lines ...string) {
	t.Helper()
	for name, got := range g.id.Status().RefusedPeers.All() {
		if want := map[bool]uint64{true: n}[name == reason]; got != want {
			t.Errorf("%d refusals with reason %s, want %d", got, name, want)
		}
	}
	var told []string
	for line := range strings.Lines(g.log.String()) {
		if strings.Contains(line, `msg="peer refused"`) && strings.Contains(line, "level=INFO") {
			told = append(told, line)
		}
	}
	if len(told) != len(lines) {
		t.Errorf("%d lines of the log, want %d:\n%s", len(told), len(lines), strings.Join(told, ""))
		return
	}
	for i, count := range lines {
		if !strings.Contains(told[i], "reason="+reason+" ") || !strings.HasSuffix(told[i], "count="+count+"\n") {
			t.Errorf("line %d of the log is %q, want the reason %s and count=%s", i, told[i], reason, count)
		}
	}
	if strings.Contains(g.log.String(), "\nlevel=ERROR msg=forged") {
		t.Error("an error begins a line of its own")
	}
}

// refusedClients are clients that a handshake refuses, with the reason that counts.
var refusedClients = map[string]struct {
	reason string
	client func(t *testing.T, g *refusingServer) *tls.Config
}{
	"no certificate": {"no_certificate", func(t *testing.T, g *refusingServer) *tls.Config {
		return showing(g.leaf(t, "client", nil), nil)
	}},
	"another root": {"unknown_issuer", func(t *testing.T, g *refusingServer) *tls.Config {
		return shows(g, newCA(t, "other").leaf(t, "client", nil))
	}},
	"expired": {"expired", func(t *testing.T, g *refusingServer) *tls.Config {
		return shows(g, g.leaf(t, "client", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }))
	}},
	"not yet valid": {"expired", func(t *testing.T, g *refusingServer) *tls.Config {
		return shows(g, g.leaf(t, "client", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) }))
	}},
	"revoked": {"revoked", func(t *testing.T, g *refusingServer) *tls.Config {
		m := g.leaf(t, "client", nil)
		g.src.mustPush(t, taking(g.mine, g.crl(t, -1, m)))
		return shows(g, m)
	}},
	"another name": {"denied", func(t *testing.T, g *refusingServer) *tls.Config {
		return shows(g, g.leaf(t, "\x1b[31mstranger\nlevel=ERROR msg=forged", func(c *x509.Certificate) { c.DNSNames = []string{"refusedClient"} }))
	}},
	"denied by an error of the caller's": {"denied", func(t *testing.T, g *refusingServer) *tls.Config {
		g.denies.Store(true)
		return shows(g, g.leaf(t, "client", nil))
	}},
	"an old version of TLS": {"protocol", func(t *testing.T, g *refusingServer) *tls.Config {
		conf := shows(g, g.leaf(t, "client", nil))
		conf.MinVersion, conf.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		return conf
	}},
	"another protocol": {"protocol", func(t *testing.T, g *refusingServer) *tls.Config {
		conf := shows(g, g.leaf(t, "client", nil))
		conf.NextProtos = []string{"imap"}
		return conf
	}},
	"a key that is not its own": {"protocol", func(t *testing.T, g *refusingServer) *tls.Config {
		m := g.leaf(t, "client", nil)
		m.Certificate.PrivateKey = newKey(t)
		return shows(g, m)
	}},
	"not for clients": {"other", func(t *testing.T, g *refusingServer) *tls.Config {
		return shows(g, g.leaf(t, "client", func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }))
	}},
	"does not trust us": {"other", func(t *testing.T, g *refusingServer) *tls.Config {
		conf := shows(g, g.leaf(t, "client", nil))
		conf.RootCAs = x509.NewCertPool()
		return conf
	}},
	"our fault": {"other", func(t *testing.T, g *refusingServer) *tls.Config {
		g.panics.Store(true)
		return shows(g, g.leaf(t, "client", nil))
	}},
}

// shows is the configuration of a client that sends its certificate whatever roots the
// server names.
func shows(g *refusingServer, m rotation.Material) *tls.Config {
	m.Roots = g.mine.Roots
	return showing(m, &m.Certificate)
}

func showing(m rotation.Material, cert *tls.Certificate) *tls.Config {
	conf := newTicketClient("", m).conf
	conf.Certificates = nil
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if cert == nil {
			return &tls.Certificate{}, nil
		}
		return cert, nil
	}
	return conf
}

// ways are the ways to accept connections. Each runs until the end of the test.
var ways = map[string]func(t *testing.T, g *refusingServer){
	"net/http": func(t *testing.T, g *refusingServer) {
		srv := &http.Server{
			Handler: g.server.Handler(http.HandlerFunc(whoami)), ConnContext: g.server.ConnContext,
			ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
		}
		t.Cleanup(func() { _ = srv.Close() })
		go func() { _ = srv.Serve(g.server.Listener(g.network)) }()
	},
	"Handshake": func(t *testing.T, g *refusingServer) {
		go func() {
			for {
				raw, err := g.network.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = g.server.Handshake(context.WithoutCancel(t.Context()), raw) }()
			}
		}()
	},
}

// connect makes a handshake and reads until the server's end.
func (g *refusingServer) connect(t *testing.T, conf *tls.Config) error {
	t.Helper()
	raw, err := g.network.Dial(t.Context(), "tcp", "svc")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	c := tls.Client(raw, conf)
	if err := c.HandshakeContext(t.Context()); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

// TestRefusedHandshakes expects that ten refusals are counted by reason and are one line
// of the log. The next line comes after a minute, with the number of refusals since.
func TestRefusedHandshakes(t *testing.T) {
	for way, open := range ways {
		for name, refusedClient := range refusedClients {
			for _, proto := range []string{"http/1.1", "h2"} {
				t.Run(way+" "+name+" "+proto, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						g := newRefusingServer(t)
						open(t, g)
						conf := refusedClient.client(t, g)
						if conf.NextProtos == nil {
							conf.NextProtos = []string{proto}
						}
						refuse := func() {
							if err := g.connect(t, conf); err == nil || errors.Is(err, io.EOF) {
								t.Errorf("the refused peer got %v", err)
							}
							synctest.Wait()
						}
						for range 10 {
							refuse()
						}
						g.refusedPeers(t, refusedClient.reason, 10, "1")
						time.Sleep(time.Minute)
						refuse()
						g.refusedPeers(t, refusedClient.reason, 11, "1", "10")
					})
				})
			}
		}
	}
}

// TestSlowAndSilentPeers expects that a peer that is too slow counts as refused, and
// that a peer that hangs up does not.
func TestSlowAndSilentPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRefusingServer(t)
		ways["net/http"](t, g)
		for range 10 {
			raw, err := g.network.Dial(t.Context(), "tcp", "svc")
			if err != nil {
				t.Fatal(err)
			}
			_ = raw.Close()
		}
		synctest.Wait()
		g.refusedPeers(t, "other", 0)
		for range 10 {
			raw, err := g.network.Dial(t.Context(), "tcp", "svc")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = raw.Close() }()
		}
		time.Sleep(time.Minute)
		g.refusedPeers(t, "other", 10, "1")
	})
}

// TestCleartextIsRefused sends HTTP to the port of TLS, and a request without TLS to the
// Handler.
func TestCleartextIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRefusingServer(t)
		ways["net/http"](t, g)
		for range 10 {
			raw, err := g.network.Dial(t.Context(), "tcp", "svc")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(raw, "GET / HTTP/1.1\r\nHost: svc\r\n\r\n")
			_, _ = io.ReadAll(raw)
			_ = raw.Close()
		}
		synctest.Wait()
		for range 10 {
			g.server.Handler(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
		}
		g.refusedPeers(t, "protocol", 20, "1")
	})
}

// TestRefusedRequests expects that requests over connections that were opened before a
// change of the rules are counted, and likewise those of Server.Authorize.
func TestRefusedRequests(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("denied, HTTP/2 %v", h2), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRefusingServer(t)
				ways["net/http"](t, g)
				client := open(t, rotation.Static(g.leaf(t, "client", nil)), 0)
				var transports []*rotation.Transport
				for range 10 {
					tr := transport(t, client, rotation.TransportOptions{HTTP1Only: !h2, DialContext: g.network.Dial, ServerName: "svc"})
					mustGet(t, tr, "svc")
					transports = append(transports, tr)
				}
				g.denies.Store(true)
				for _, tr := range transports {
					resp := start(t, tr, "svc", "/")
					_, _ = resp.Body.Close(), tr.Close()
					if resp.StatusCode != http.StatusForbidden {
						t.Errorf("a refused request is answered %d", resp.StatusCode)
					}
				}
				g.refusedPeers(t, "denied", 10, "1")
			})
		})
	}
	for name, ask := range map[string]func(g *refusingServer, cs tls.ConnectionState){
		"Authorize": func(g *refusingServer, cs tls.ConnectionState) { _ = g.server.Authorize(cs) },
		"Handler": func(g *refusingServer, cs tls.ConnectionState) {
			r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", nil)
			r.TLS = &cs
			g.server.Handler(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), r)
		},
	} {
		for _, reason := range []string{"revoked", "denied", "no_certificate"} {
			t.Run(name+" "+reason, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g := newRefusingServer(t)
					m := g.leaf(t, "client", nil)
					leaf := m.Certificate.Leaf
					cs := tls.ConnectionState{
						PeerCertificates: []*x509.Certificate{leaf, g.inter}, VerifiedChains: [][]*x509.Certificate{{leaf, g.inter, g.root}},
					}
					ask(g, cs)
					g.refusedPeers(t, reason, 0)
					switch reason {
					case "revoked":
						g.src.mustPush(t, taking(g.mine, g.crl(t, -1, m)))
					case "denied":
						g.denies.Store(true)
					default:
						cs = tls.ConnectionState{}
					}
					for range 10 {
						ask(g, cs)
					}
					g.refusedPeers(t, reason, 10, "1")
				})
			})
		}
	}
}

// TestCutConnectionsAreRefusedPeers expects one refusal for each open connection that is
// cut because of its peer, and none for one that is cut because of its age.
func TestCutConnectionsAreRefusedPeers(t *testing.T) {
	for reason, change := range map[string]func(t *testing.T, g *refusingServer, m rotation.Material){
		"revoked": func(t *testing.T, g *refusingServer, m rotation.Material) {
			g.src.mustPush(t, taking(g.mine, g.crl(t, -1, m)))
		},
		"denied":  func(_ *testing.T, g *refusingServer, _ rotation.Material) { g.denies.Store(true) },
		"expired": func(*testing.T, *refusingServer, rotation.Material) { time.Sleep(2 * time.Hour) },
		"unknown_issuer": func(t *testing.T, g *refusingServer, _ rotation.Material) {
			m := newCA(t, "successor").leaf(t, "svc", nil)
			m.Revoked = g.mine.Revoked[:0]
			time.Sleep(31 * time.Minute) // the list that is in effect may be retired
			g.src.mustPush(t, m)
		},
	} {
		t.Run(reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRefusingServer(t)
				ways["Handshake"](t, g)
				m := g.leaf(t, "client", nil)
				gone := make(chan error)
				for range 10 {
					go func() { gone <- g.connect(t, shows(g, m)) }()
				}
				synctest.Wait()
				if n := rotation.OpenConns(g.server); n != 10 {
					t.Fatalf("%d connections are open", n)
				}
				change(t, g, m)
				for range 10 {
					<-gone
				}
				g.refusedPeers(t, reason, 10, "1")
			})
		})
	}
}
