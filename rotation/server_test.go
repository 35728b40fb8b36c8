package rotation_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/rotation"
)

func noAddress(t testing.TB, ca *testCA) rotation.Material {
	return ca.leaf(t, "svc", func(c *x509.Certificate) { c.IPAddresses = nil })
}

// ticketClient is a TLS client outside of this package's control: it keeps its tickets
// across connections, as other implementations do.
type ticketClient struct {
	addr string
	conf *tls.Config
}

func newTicketClient(addr string, m rotation.Material) *ticketClient {
	pool := x509.NewCertPool()
	for _, r := range m.Roots {
		pool.AddCert(r)
	}
	return &ticketClient{addr, &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: "svc", RootCAs: pool,
		Certificates: []tls.Certificate{m.Certificate}, ClientSessionCache: tls.NewLRUClientSessionCache(8),
	}}
}

// connect reports whether the connection was resumed. It reads one byte, so that it gets
// the alert or the ticket of the server.
func (p *ticketClient) connect(t testing.TB) (resumed bool, err error) {
	t.Helper()
	raw, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	c := tls.Client(raw, p.conf)
	if err := c.HandshakeContext(t.Context()); err != nil {
		return false, err
	}
	_, err = c.Read(make([]byte, 1))
	return c.ConnectionState().DidResume, err
}

// accept serves one byte to each connection that passes the handshake.
func accept(t testing.TB, conf *tls.Config) string {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", conf)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("x")) // runs the handshake; refused peers are theirs to notice
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().String()
}

func serverFor(t testing.TB, src rotation.Source, opts rotation.ServerOptions) (*rotation.Identity, string) {
	t.Helper()
	id := open(t, src, 0)
	conf, err := id.ServerTLSConfig(opts)
	if err != nil {
		t.Fatal(err)
	}
	return id, accept(t, conf)
}

// TestIdentityRotationKeepsResumption expects that sessions are resumed after renewals.
func TestIdentityRotationKeepsResumption(t *testing.T) {
	ca := newCA(t, "ca")
	src := newPushed(ca.leaf(t, "svc", nil))
	_, addr := serverFor(t, src, rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
	p := newTicketClient(addr, ca.leaf(t, "client", nil))
	for i := range 20 {
		resumed, err := p.connect(t)
		if err != nil || resumed != (i > 0) {
			t.Errorf("connection %d: resumed %v, %v", i, resumed, err)
		}
		src.mustPush(t, ca.leaf(t, "svc", nil))
	}
}

// TestResumeAfterTrustRemoved expects that tickets of peers end when their root leaves
// the bundle.
func TestResumeAfterTrustRemoved(t *testing.T) {
	ca, other := newCA(t, "ca"), newCA(t, "other")
	m := ca.leaf(t, "svc", nil)
	m.Roots = append(m.Roots, other.root)
	src := newPushed(m)
	_, addr := serverFor(t, src, rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
	cm := other.leaf(t, "client", nil)
	cm.Roots = []*x509.Certificate{ca.root}
	p := newTicketClient(addr, cm)
	for i := range 2 {
		if resumed, err := p.connect(t); err != nil || resumed != (i == 1) {
			t.Fatalf("connection %d: resumed %v, %v", i, resumed, err)
		}
	}
	m.Roots = []*x509.Certificate{ca.root}
	src.mustPush(t, m)
	for range 2 {
		if _, err := p.connect(t); err == nil {
			t.Error("a peer of a removed root got in")
		}
	}
	// TestStaleTicketFallsBack: with a certificate of the new trust and the old
	// tickets, the next handshake is a full one and works; no loop.
	p.conf.Certificates = []tls.Certificate{ca.leaf(t, "client", nil).Certificate}
	for i := range 2 {
		if resumed, err := p.connect(t); err != nil || resumed != (i == 1) {
			t.Errorf("stale ticket, connection %d: resumed %v, %v", i, resumed, err)
		}
	}
}

// TestAuthorizerRunsOnResumption expects that a denied peer cannot resume, and that a
// peer with older tickets makes a full handshake after a change of PolicyVersion.
func TestAuthorizerRunsOnResumption(t *testing.T) {
	ca := newCA(t, "ca")
	var denied atomic.Bool
	var version atomic.Value
	version.Store("1")
	_, addr := serverFor(t, rotation.Static(ca.leaf(t, "svc", nil)), rotation.ServerOptions{
		Authorize: func(cs tls.ConnectionState) error {
			if denied.Load() {
				return rotation.ErrPeerDenied
			}
			return rotation.AllowNames("client")(cs)
		},
		PolicyVersion: func() string { return version.Load().(string) },
	})
	p := newTicketClient(addr, ca.leaf(t, "client", nil))
	for i := range 2 {
		if resumed, err := p.connect(t); err != nil || resumed != (i == 1) {
			t.Fatalf("connection %d: resumed %v, %v", i, resumed, err)
		}
	}
	denied.Store(true)
	if _, err := p.connect(t); err == nil {
		t.Error("a denied peer resumed")
	}
	denied.Store(false)
	version.Store("2")
	if resumed, err := p.connect(t); err != nil || resumed {
		t.Errorf("after a policy change: resumed %v, %v; want a full handshake", resumed, err)
	}
}

// TestTicketsAreOfOneServer expects that a ticket of one server is not accepted by
// another one, whose Authorizer may be stricter.
func TestTicketsAreOfOneServer(t *testing.T) {
	ca := newCA(t, "ca")
	id, addr := serverFor(t, rotation.Static(ca.leaf(t, "svc", nil)), rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
	conf, err := id.ServerTLSConfig(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
	if err != nil {
		t.Fatal(err)
	}
	p := newTicketClient(addr, ca.leaf(t, "client", nil))
	if _, err := p.connect(t); err != nil {
		t.Fatal(err)
	}
	p.addr = accept(t, conf)
	if resumed, err := p.connect(t); err != nil || resumed {
		t.Errorf("resumed %v, %v at another server", resumed, err)
	}
}

func TestAllowNames(t *testing.T) {
	ca := newCA(t, "ca")
	spiffe, _ := url.Parse("spiffe://artstore/ingester")
	m := ca.leaf(t, "ingester", func(c *x509.Certificate) { c.URIs = []*url.URL{spiffe}; c.Subject.CommonName = "admin" })
	cs := tls.ConnectionState{PeerCertificates: []*x509.Certificate{m.Certificate.Leaf}, VerifiedChains: [][]*x509.Certificate{{m.Certificate.Leaf}}}
	for name, want := range map[string]bool{
		"ingester": true, "spiffe://artstore/ingester": true, "admin": false, "Ingester": false, "ingest": false,
		"*": false, "": false, "spiffe://artstore/": false,
	} {
		if err := rotation.AllowNames(name)(cs); (err == nil) != want || err != nil && !errors.Is(err, rotation.ErrPeerDenied) {
			t.Errorf("AllowNames(%q) = %v, want allowed %v", name, err, want)
		}
	}
	if rotation.AllowNames()(cs) == nil || rotation.AllowNames("ingester")(tls.ConnectionState{PeerCertificates: cs.PeerCertificates}) == nil {
		t.Error("an empty list and an unverified peer are refused")
	}
	if rotation.AnyVerifiedPeer()(tls.ConnectionState{}) == nil {
		t.Error("no certificate is no verified peer")
	}
}

// TestClientCertOptional expects that clients without a certificate are admitted, and
// that clients with a bad one are not.
func TestClientCertOptional(t *testing.T) {
	ca, other := newCA(t, "ca"), newCA(t, "other")
	opts := rotation.ServerOptions{Authorize: rotation.AllowNames("client"), ClientCertOptional: true}
	_, addr := serverFor(t, rotation.Static(ca.leaf(t, "svc", nil)), opts)
	try := func(certs ...tls.Certificate) error {
		p := newTicketClient(addr, ca.leaf(t, "client", nil))
		p.conf.Certificates = nil
		p.conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(certs) == 0 {
				return &tls.Certificate{}, nil
			}
			return &certs[0], nil
		}
		_, err := p.connect(t)
		return err
	}
	if err := try(); err != nil {
		t.Errorf("no certificate: %v", err)
	}
	if err := try(ca.leaf(t, "client", nil).Certificate); err != nil {
		t.Errorf("good certificate: %v", err)
	}
	if try(ca.leaf(t, "stranger", nil).Certificate) == nil || try(other.leaf(t, "client", nil).Certificate) == nil {
		t.Error("a certificate that is there must be verified and authorised")
	}
}

func TestServerOptions(t *testing.T) {
	ca := newCA(t, "ca")
	id := open(t, rotation.Static(ca.leaf(t, "svc", nil)), 0)
	if _, err := id.ServerTLSConfig(rotation.ServerOptions{}); err == nil {
		t.Error("no authorizer must be refused")
	}
	if _, err := id.ServerTLSConfig(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer(), MinVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 must be refused")
	}
	conf, err := id.ServerTLSConfig(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer(), MinVersion: tls.VersionTLS12, NextProtos: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	inner, err := conf.GetConfigForClient(nil)
	if err != nil || inner.MinVersion != tls.VersionTLS12 || inner.NextProtos[0] != "x" || inner.ClientAuth != tls.RequireAndVerifyClientCert || inner.ClientCAs == nil {
		t.Errorf("inner configuration: %+v, %v", inner, err)
	}
}

func TestServerConfigZeroAlloc(t *testing.T) {
	ca := newCA(t, "ca")
	src := newPushed(ca.leaf(t, "svc", nil))
	id := open(t, src, 0)
	conf, err := id.ServerTLSConfig(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
	if err != nil {
		t.Fatal(err)
	}
	first, _ := conf.GetConfigForClient(nil)
	if n := testing.AllocsPerRun(1000, func() {
		if c, err := conf.GetConfigForClient(nil); err != nil || c != first {
			t.Fatal("another configuration in the same generation")
		}
	}); n != 0 {
		t.Errorf("%v allocations per handshake", n)
	}
	src.mustPush(t, ca.leaf(t, "svc", nil))
	if c, _ := conf.GetConfigForClient(nil); c == first {
		t.Error("the configuration did not follow the rotation")
	}
}

// TestTicketKeyDays expects that a key encrypts for a day and decrypts for another one,
// and depends on every part of its scope.
func TestTicketKeyDays(t *testing.T) {
	keys := rotation.TicketKeys()
	day := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	today, tomorrow := keys(day, "a", "b"), keys(day.Add(24*time.Hour), "a", "b")
	if today[0] != tomorrow[1] || today[0] == tomorrow[0] || today[0] == today[1] {
		t.Error("yesterday's key must be today's second")
	}
	if keys(day, "a", "b")[0] != today[0] {
		t.Error("equal scopes must give equal keys")
	}
	for _, scope := range [][]string{{"a"}, {"ab"}, {"ab", ""}, {"b", "a"}} {
		if keys(day, scope...)[0] == today[0] {
			t.Errorf("scope %q has the key of another", scope)
		}
	}
	if rotation.TicketKeys()(day, "a", "b")[0] == today[0] {
		t.Error("the secret must be of the process")
	}
	ca := newCA(t, "ca")
	srv, err := open(t, rotation.Static(ca.leaf(t, "svc", nil)), 0).Server(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
	if err != nil {
		t.Fatal(err)
	}
	at := rotation.ServerAt(srv)
	c1, _ := at(day.Add(time.Hour))
	c2, _ := at(day.Add(23 * time.Hour))
	c3, _ := at(day.Add(25 * time.Hour))
	if c1 != c2 || c2 == c3 {
		t.Error("one configuration a day")
	}
}

// countedWrites counts what would be system calls.
type countedWrites struct {
	net.Conn
	n int
}

func (c *countedWrites) Write(p []byte) (int, error) { c.n++; return c.Conn.Write(p) }

// TestWholeRecords expects that a message of some kilobytes is one record in one write,
// in both directions.
func TestWholeRecords(t *testing.T) {
	ca := newCA(t, "ca")
	id := open(t, rotation.Static(ca.leaf(t, "svc", nil)), 0)
	serverConf, err := id.ServerTLSConfig(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
	must(t, err)
	clientConf, err := id.ClientTLSConfig("svc")
	must(t, err)
	a, b := newPipeHalf(), newPipeHalf()
	near, far := &countedWrites{Conn: &memConn{in: a, out: b}}, &countedWrites{Conn: &memConn{in: b, out: a}}
	client, server := tls.Client(near, clientConf), tls.Server(far, serverConf)
	var served error
	var group sync.WaitGroup
	group.Go(func() { served = server.HandshakeContext(t.Context()) })
	must(t, client.HandshakeContext(t.Context()))
	group.Wait()
	must(t, served)
	message := make([]byte, 8<<10)
	for name, c := range map[string]struct {
		from, to *tls.Conn
		raw      *countedWrites
	}{"to the server": {client, server, near}, "to the client": {server, client, far}} {
		before := c.raw.n
		_, err := c.from.Write(message)
		must(t, err)
		if n := c.raw.n - before; n != 1 {
			t.Errorf("%s: %d writes", name, n)
		}
		_, err = io.ReadFull(c.to, make([]byte, len(message)))
		must(t, err)
	}
}

var _ http.RoundTripper = (*rotation.Transport)(nil)
