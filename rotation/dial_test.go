package rotation_test

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/status"
)

// echo serves raw TLS that sends back what it gets.
func echo(t testing.TB, id *rotation.Identity) string {
	t.Helper()
	s, err := id.Server(rotation.ServerOptions{Authorize: rotation.AllowNames("client"), NextProtos: []string{"echo"}})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := s.Listener(ln)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return ln.Addr().String()
}

func say(c net.Conn) error {
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// TestRawConnections expects that a raw TLS connection keeps its certificate over a
// rotation and is cut after the drain timeout, and that a new connection has the new
// certificate.
func TestRawConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	ca := newCA(t, "ca")
	addr := echo(t, open(t, rotation.Static(ca.leaf(t, "svc", nil)), 0))
	src := newPushed(ca.leaf(t, "client", nil))
	id := open(t, src, 3*time.Second)
	tr := transport(t, id, rotation.TransportOptions{})
	old, err := tr.DialTLSContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	src.mustPush(t, ca.leaf(t, "client", nil))
	if err := say(old); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
	if st := id.Status(); st.Draining != 1 || len(st.Connections) != 1 || st.Connections[0] != (status.Connections{Generation: 1, Client: 1}) {
		t.Errorf("status %+v", st)
	}
	fresh, err := tr.DialTLSContext(t.Context(), "tcp", addr)
	if err != nil || say(fresh) != nil {
		t.Fatalf("a new connection: %v", err)
	}
	if _, err := io.ReadAll(old); err == nil {
		t.Error("the old connection outlived its grace")
	}
	waitFor(t, "the end of the old generation", func() bool { st := id.Status(); return st.Draining == 0 && st.Forced == 1 })
	_ = fresh.Close()
	if n := rotation.Conns(tr); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	src.mustPush(t, ca.leaf(t, "client", nil))
	waitFor(t, "draining", func() bool { return id.Status().Draining == 0 })
	_ = tr.Close()
	if _, err := tr.DialTLSContext(t.Context(), "tcp", addr); !errors.Is(err, rotation.ErrClosed) {
		t.Errorf("dialling with a closed transport: %v", err)
	}
}

// TestHandshakeOverConn expects that the caller chooses protocols and name, and that the
// server is still verified.
func TestHandshakeOverConn(t *testing.T) {
	ca := newCA(t, "ca")
	addr := echo(t, open(t, rotation.Static(ca.leaf(t, "svc", nil)), 0))
	tr := transport(t, open(t, rotation.Static(ca.leaf(t, "client", nil)), 0), rotation.TransportOptions{})
	for _, c := range []struct {
		name string
		ok   bool
	}{{"svc", true}, {"127.0.0.1", true}, {"other", false}, {"127.0.0.2", false}, {"", false}} {
		raw, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := tr.Handshake(t.Context(), raw, c.name, "echo")
		if (err == nil) != c.ok {
			t.Errorf("%q: %v", c.name, err)
		}
		if err != nil {
			if _, err := raw.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%q: the connection is left open", c.name)
			}
			continue
		}
		if got := conn.ConnectionState().NegotiatedProtocol; got != "echo" {
			t.Errorf("%q: protocol %q", c.name, got)
		}
		_ = conn.Close()
	}
	if _, err := tr.DialTLSContext(t.Context(), "tcp", "no port"); err == nil {
		t.Error("an address without a port was accepted")
	}
}

// TestClientConfig expects that a configuration follows all changes of the identity
// except added roots, and that its name cannot be changed.
func TestClientConfig(t *testing.T) {
	ca, other := newCA(t, "ca"), newCA(t, "other")
	server := ca.leaf(t, "svc", nil)
	server.Roots = append(server.Roots, other.root)
	serverSrc := newPushed(server)
	addr := listenServer(t, open(t, serverSrc, 0), rotation.ServerOptions{Authorize: rotation.AllowNames("client")}, whoami)
	m := ca.leaf(t, "client", nil)
	m.Roots = append(m.Roots, other.root)
	src := newPushed(m)
	id := open(t, src, 0)
	conf, err := id.ClientTLSConfig("svc")
	if err != nil {
		t.Fatal(err)
	}
	dial := func(addr string, conf *tls.Config) error {
		c, err := tls.Dial("tcp", addr, conf)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		_, err = c.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
		return err
	}
	if err := dial(addr, conf); err != nil {
		t.Errorf("dial: %v", err)
	}
	second := ca.leaf(t, "second", func(c *x509.Certificate) { c.DNSNames = []string{"second"} })
	elsewhere := listenServer(t, open(t, rotation.Static(second), 0), rotation.ServerOptions{Authorize: rotation.AllowNames("client")}, whoami)
	renamed := conf.Clone()
	renamed.ServerName = "second" // which that server has, but it is not what was asked for
	if err := dial(elsewhere, renamed); err == nil {
		t.Error("the name was not bound")
	}
	next := ca.leaf(t, "client", nil)
	next.Roots = []*x509.Certificate{ca.root}
	src.mustPush(t, next)
	tr := &http.Transport{TLSClientConfig: conf}
	defer tr.CloseIdleConnections()
	if got := mustGet(t, tr, addr).Get("Serial"); got != next.Certificate.Leaf.SerialNumber.String() {
		t.Error("the certificate shown is not the one in effect")
	}
	moved := other.leaf(t, "svc", nil)
	moved.Roots = server.Roots
	serverSrc.mustPush(t, moved)
	if err := dial(addr, conf); err == nil {
		t.Error("a root that was removed is trusted")
	}
	if _, err := id.ClientTLSConfig(""); err == nil {
		t.Error("no name was accepted")
	}
	serverOnly := ca.leaf(t, "svc", func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] })
	if _, err := open(t, rotation.Static(serverOnly), 0).ClientTLSConfig("svc"); err == nil {
		t.Error("a leaf without clientAuth was accepted")
	}
}

// TestSeveralCertificates expects that the name that a client asks for selects the
// certificate, and that the last good version stays in place of a bad one.
func TestSeveralCertificates(t *testing.T) {
	ca := newCA(t, "ca")
	m := noAddress(t, ca)
	m.Others = []tls.Certificate{ca.leaf(t, "second", func(c *x509.Certificate) { c.DNSNames = []string{"second"}; c.IPAddresses = nil }).Certificate}
	src := newPushed(m)
	id, addr := serverFor(t, src, rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
	for _, name := range []string{"svc", "second"} {
		p := newTicketClient(addr, ca.leaf(t, "client", nil))
		p.conf.ServerName = name
		if _, err := p.connect(t); err != nil {
			t.Errorf("asking for %s: %v", name, err)
		}
	}
	for what, edit := range map[string]func(*x509.Certificate){
		"expired":           func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) },
		"without usage":     func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} },
		"clientAuth only":   func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} },
		"of a foreign root": nil,
	} {
		from := ca
		if edit == nil {
			from = newCA(t, "foreign")
			from.inter.Raw = nil
		}
		bad := m
		bad.Others = []tls.Certificate{from.leaf(t, "third", edit).Certificate}
		if edit == nil {
			bad.Others[0].Certificate = bad.Others[0].Certificate[:1]
		}
		src.mustPush(t, bad)
		if st := id.Status().Others[0]; st.Error == "" || st.Serial != certs.Serial(m.Others[0].Leaf) {
			t.Errorf("%s: accepted: %+v", what, st)
		}
	}
	if id.Current().Number() != 1 {
		t.Error("a refused certificate made a generation")
	}
}

// opaque is a key that can only sign, like one in hardware.
type opaque struct{ crypto.Signer }

// TestOpaqueSigner: any crypto.Signer serves and connects.
func TestOpaqueSigner(t *testing.T) {
	ca := newCA(t, "ca")
	wrap := func(m rotation.Material) rotation.Source {
		m.Certificate.PrivateKey = opaque{m.Certificate.PrivateKey.(crypto.Signer)}
		return rotation.Static(m)
	}
	addr := listenServer(t, open(t, wrap(ca.leaf(t, "svc", nil)), 0), rotation.ServerOptions{Authorize: rotation.AllowNames("client")}, whoami)
	id := open(t, wrap(ca.leaf(t, "client", nil)), 0)
	mustGet(t, transport(t, id, rotation.TransportOptions{}), addr)
	if _, ok := id.Current().Certificate().PrivateKey.(opaque); !ok {
		t.Error("the key is not handed on as it is")
	}
}

// TestFirstDialsAtOnce makes the first request and the first raw connection of a
// transport at the same moment, for the race detector.
func TestFirstDialsAtOnce(t *testing.T) {
	ca := newCA(t, "ca")
	addr := listenServer(t, open(t, rotation.Static(ca.leaf(t, "svc", nil)), 0), rotation.ServerOptions{Authorize: rotation.AllowNames("client")}, whoami)
	id := open(t, rotation.Static(ca.leaf(t, "client", nil)), 0)
	for range 50 {
		tr := transport(t, id, rotation.TransportOptions{})
		var both sync.WaitGroup
		both.Go(func() {
			if _, err := get(t, tr, addr); err != nil {
				t.Errorf("GET: %v", err)
			}
		})
		both.Go(func() {
			c, err := tr.DialTLSContext(t.Context(), "tcp", addr)
			if err != nil {
				t.Errorf("dial: %v", err)
				return
			}
			_ = c.Close()
		})
		both.Wait()
		_ = tr.Close()
	}
}
