package rotation_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
)

func contains(list []string, s string) bool { return slices.Contains(list, s) }

// first is the certificate of m without its issuers.
func first(m rotation.Material) tls.Certificate {
	c := m.Certificate
	c.Certificate = c.Certificate[:1]
	return c
}

func quiet(src rotation.Source) rotation.Config {
	return rotation.Config{Source: src, Logger: (&logs{}).logger()}
}

func TestOpenRefusals(t *testing.T) {
	ca := newCA(t, "ca")
	bad := ca.leaf(t, "svc", nil)
	bad.Roots = nil
	for want, cfg := range map[string]rotation.Config{
		"Source is missing":   {},
		"is negative":         {Source: rotation.Static(bad), DrainTimeout: -1},
		"bundle is empty":     quiet(rotation.Static(bad)),
		"the source stopped":  quiet(sourceFunc(func(context.Context, func(rotation.Material) error) error { return nil })),
		"no route to the sun": quiet(sourceFunc(func(context.Context, func(rotation.Material) error) error { return errors.New("no route to the sun") })),
	} {
		if _, err := rotation.Open(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open: %v, want %q", err, want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	refused := make(chan struct{})
	go func() { <-refused; cancel() }()
	_, err := rotation.Open(ctx, quiet(sourceFunc(func(ctx context.Context, yield func(rotation.Material) error) error {
		_ = yield(bad)
		close(refused)
		<-ctx.Done()
		return ctx.Err()
	})))
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "bundle is empty") {
		t.Errorf("Open until ctx: %v, want the last refusal too", err)
	}
}

type sourceFunc func(context.Context, func(rotation.Material) error) error

func (f sourceFunc) Watch(ctx context.Context, yield func(rotation.Material) error) error {
	return f(ctx, yield)
}

func TestAccessors(t *testing.T) {
	ca := newCA(t, "ca")
	m := ca.leaf(t, "svc", nil)
	id := open(t, rotation.Static(m), 0)
	g, st := id.Current(), id.Status()
	if g.Number() != 1 || g.Leaf().SerialNumber.Cmp(m.Certificate.Leaf.SerialNumber) != 0 || len(g.Chain()) != 2 || len(g.Roots()) != 1 {
		t.Error("generation does not show its material")
	}
	if len(g.Thumbprint()) != 43 || g.TrustDigest() != stepapi.TrustDigest(m.Roots) || time.Since(g.PublishedAt()) > time.Minute {
		t.Errorf("thumbprint %q, digest %q, published %v", g.Thumbprint(), g.TrustDigest(), g.PublishedAt())
	}
	if st.NotAfter != g.Leaf().NotAfter || st.LastSuccess.IsZero() || !st.OwnTrusted || st.Version != m.Version || st.Overdue || st.Reason == "" || id.Check() != nil {
		t.Errorf("status %+v", st)
	}
}

// TestCallbackMayReenter expects that a subscriber can call everything but Close, and
// gets changes in order.
func TestCallbackMayReenter(t *testing.T) {
	ca := newCA(t, "ca")
	src := newPushed(ca.leaf(t, "svc", nil))
	id := open(t, src, 0)
	var seen []uint64
	done := make(chan struct{})
	var stop func()
	stop = id.Subscribe(func(c rotation.Change) {
		if c.Err != nil {
			return
		}
		seen = append(seen, c.Generation.Number())
		id.Lease().Release()
		_, _ = id.Status(), id.Current()
		id.Subscribe(func(rotation.Change) {})()
		if err := id.Reload(context.Background()); err != nil {
			t.Errorf("Reload in a callback: %v", err)
		}
		if len(seen) == 5 {
			stop()
			close(done)
		}
	})
	for range 5 {
		src.mustPush(t, ca.leaf(t, "svc", nil))
	}
	<-done
	if !slices.Equal(seen, []uint64{2, 3, 4, 5, 6}) {
		t.Errorf("order %v", seen)
	}
	src.mustPush(t, ca.leaf(t, "svc", nil))
	if len(seen) != 5 {
		t.Error("called after stop")
	}
}

func TestReload(t *testing.T) {
	ca := newCA(t, "ca")
	dir := t.TempDir()
	f := write(t, dir, ca.leaf(t, "svc", nil))
	f.Poll = time.Hour
	blind := func() (*fakeNotifier, error) { return nil, errors.New("blind") }
	id := open(t, filesNotified(f, blind), 0)
	m := ca.leaf(t, "svc", nil)
	write(t, dir, m)
	if err := id.Reload(t.Context()); err != nil || serial(id) != m.Certificate.Leaf.SerialNumber.String() {
		t.Errorf("Reload: %v", err)
	}
	put(t, f.Key, keyPEM(t, ca.leaf(t, "svc", nil)))
	if err := id.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "does not fit") {
		t.Errorf("Reload of a torn pair: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := id.Reload(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("Reload with a cancelled context: %v", err)
	}
	_ = id.Close()
	if err := id.Reload(t.Context()); !errors.Is(err, rotation.ErrClosed) {
		t.Errorf("Reload after Close: %v", err)
	}
}

// TestSourceRestarts expects that a source that gives up is started again with a growing
// pause, and that Status says so.
func TestSourceRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, "ca")
		src := newPushed(ca.leaf(t, "svc", nil))
		var starts atomic.Int64
		id := open(t, sourceFunc(func(ctx context.Context, yield func(rotation.Material) error) error {
			if n := starts.Add(1); n > 1 && n < 8 {
				return errors.New("hiccup")
			}
			return src.Watch(ctx, yield)
		}), 0)
		defer func() { _ = id.Close() }()
		src.ended <- errors.New("hiccup")
		synctest.Wait()
		if st := id.Status(); st.LastError != "hiccup" || id.Check() != nil {
			t.Errorf("status %+v", st)
		}
		began := time.Now()
		time.Sleep(10 * time.Second)
		if n := starts.Load(); n < 7 || n > 8 {
			t.Errorf("%d starts within %s", n, time.Since(began))
		}
		time.Sleep(time.Minute)
		src.mustPush(t, ca.leaf(t, "svc", nil))
		if st := id.Status(); st.LastError != "" || st.Generation != 2 {
			t.Errorf("status %+v", st)
		}
	})
}

// TestNotYetValid expects that a candidate waits for its NotBefore, is dropped when
// another one comes, and is published at once if the certificate in effect has expired.
func TestNotYetValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, "ca")
		src := newPushed(ca.leaf(t, "svc", nil))
		id := open(t, src, 0)
		defer func() { _ = id.Close() }()
		in := func(from, to time.Duration) rotation.Material {
			return ca.leaf(t, "svc", func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to) })
		}
		dropped := in(5*time.Minute, time.Hour)
		src.mustPush(t, dropped)
		src.mustPush(t, in(-time.Minute, time.Hour)) // something better
		time.Sleep(6 * time.Minute)
		if id.Current().Number() != 2 || !id.Status().HeldUntil.IsZero() {
			t.Errorf("a dropped candidate was published: %+v", id.Status())
		}
		later := in(10*time.Minute, 2*time.Hour)
		src.mustPush(t, later)
		src.mustPush(t, later) // as a poll would
		time.Sleep(9 * time.Minute)
		if st := id.Status(); id.Current().Number() != 2 || !st.HeldUntil.Equal(later.Certificate.Leaf.NotBefore) {
			t.Errorf("published early: %+v", st)
		}
		time.Sleep(2 * time.Minute)
		if id.Current().Number() != 3 || id.Check() != nil {
			t.Error("not published when it became valid")
		}
		// The one in effect expires first: then the one to come is the better choice.
		src.mustPush(t, in(3*time.Hour, 4*time.Hour))
		time.Sleep(2 * time.Hour)
		if id.Current().Number() != 4 || id.Check() == nil || !strings.Contains(id.Check().Error(), "not valid before") {
			t.Errorf("Check: %v", id.Check())
		}
	})
}

// TestExpiryIsSaid expects a warning before the certificate expires, an error when it
// expires, and that the identity is not ready then.
func TestExpiryIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, out := newCA(t, "ca"), &logs{}
		id, err := rotation.Open(t.Context(), rotation.Config{Source: rotation.Static(ca.leaf(t, "svc", nil)), Logger: out.logger()})
		must(t, err)
		defer func() { _ = id.Close() }()
		time.Sleep(50 * time.Minute)
		if !strings.Contains(out.String(), "not renewed in time") || !id.Status().Overdue || id.Check() != nil {
			t.Errorf("no early warning: %s", out)
		}
		time.Sleep(11 * time.Minute)
		if !strings.Contains(out.String(), "certificate expired") || id.Check() == nil {
			t.Errorf("the end was not said: %s", out)
		}
	})
}

// TestLogsNeverHoldKeys prints every public value and all logs, and looks for private
// keys in the output.
func TestLogsNeverHoldKeys(t *testing.T) {
	ca, out := newCA(t, "ca"), &logs{}
	m := ca.leaf(t, "svc", nil)
	src := newPushed(m)
	log := out.logger()
	id, err := rotation.Open(t.Context(), rotation.Config{Source: src, Logger: log})
	must(t, err)
	defer func() { _ = id.Close() }()
	torn := ca.leaf(t, "svc", nil)
	torn.Certificate.PrivateKey = newKey(t)
	err = src.push(torn)
	g := id.Current()
	log.Info("all", "material", m, "generation", g, "status", id.Status(), "err", err)
	for _, v := range []any{m, g, id.Status(), err} {
		fmt.Fprintf(out, "%v %+v %#v %s\n", v, v, v, v)
	}
	for _, k := range []any{m.Certificate.PrivateKey, torn.Certificate.PrivateKey} {
		raw, err := k.(*ecdsa.PrivateKey).Bytes()
		must(t, err)
		for _, form := range []string{fmt.Sprintf("%x", raw), k.(*ecdsa.PrivateKey).D.String(), fmt.Sprint(raw)} { //nolint:staticcheck // SA1019: the scalar as fmt would print it
			if strings.Contains(out.String(), form) {
				t.Error("a private key was printed")
			}
		}
	}
	if strings.Contains(out.String(), "PRIVATE KEY") {
		t.Error("a PEM key was printed")
	}
}

// TestCloseJoins closes twice, from two goroutines, under load.
func TestCloseJoins(t *testing.T) {
	ca := newCA(t, "ca")
	_, _, addr := serve(t, ca, whoami)
	src := newPushed(ca.leaf(t, "client", nil))
	watching := make(chan struct{})
	id := open(t, sourceFunc(func(ctx context.Context, yield func(rotation.Material) error) error {
		defer close(watching)
		return src.Watch(ctx, yield)
	}), 0)
	tr := transport(t, id, rotation.TransportOptions{})
	mustGet(t, tr, addr)
	src.mustPush(t, ca.leaf(t, "client", nil))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				if _, err := get(t, tr, addr); errors.Is(err, rotation.ErrClosed) {
					return
				}
			}
		})
	}
	for range 2 {
		wg.Go(func() { must(t, id.Close()) })
	}
	wg.Wait()
	select {
	case <-watching:
	default:
		t.Error("Close did not wait for the source")
	}
	if n := rotation.Conns(tr); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	must(t, id.Close())
}

// TestDayOfRotations runs 24 hours in a bubble: leaves of one hour on both sides,
// connections in memory, and requests after each rotation. No request fails, and no
// connections are left over.
func TestDayOfRotations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, "ca")
		serverSrc, clientSrc := newPushed(ca.leaf(t, "svc", nil)), newPushed(ca.leaf(t, "client", nil))
		server, client := open(t, serverSrc, 0), open(t, clientSrc, 0)
		conf, err := server.ServerTLSConfig(rotation.ServerOptions{Authorize: rotation.AllowNames("client")})
		must(t, err)
		ln := newMemListener()
		srv := &http.Server{Handler: http.HandlerFunc(whoami), TLSConfig: conf}
		served := make(chan struct{})
		go func() { defer close(served); _ = srv.ServeTLS(ln, "", "") }()
		tr := transport(t, client, rotation.TransportOptions{DialContext: ln.dial})
		for i := range 48 {
			for range 3 {
				h := mustGet(t, tr, "svc:443")
				if h.Get("Serial") != serial(client) {
					t.Fatalf("rotation %d: served as %s, want %s", i, h.Get("Serial"), serial(client))
				}
			}
			time.Sleep(40 * time.Minute)
			must(t, server.Check())
			clientSrc.mustPush(t, ca.leaf(t, "client", nil))
			serverSrc.mustPush(t, ca.leaf(t, "svc", nil))
		}
		if g := client.Current().Number(); g != 49 || rotation.Conns(tr) > 1 {
			t.Errorf("generation %d, %d connections", g, rotation.Conns(tr))
		}
		must(t, tr.Close())
		must(t, srv.Close())
		<-served
		must(t, server.Close())
		must(t, client.Close())
	})
}

// memListener connects in memory with buffers: net.Pipe has none, and a TLS 1.3
// server that writes its ticket while the client writes its request would block.
type memListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newMemListener() *memListener {
	return &memListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *memListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *memListener) Addr() net.Addr { return &net.TCPAddr{} }

func (l *memListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	a, b := newPipeHalf(), newPipeHalf()
	select {
	case l.conns <- &memConn{in: a, out: b}:
		return &memConn{in: b, out: a}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pipeHalf is one direction of a connection.
type pipeHalf struct {
	mu     sync.Mutex
	more   *sync.Cond
	buf    []byte
	closed bool
}

func newPipeHalf() *pipeHalf {
	h := &pipeHalf{}
	h.more = sync.NewCond(&h.mu)
	return h
}

func (h *pipeHalf) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.buf) == 0 && !h.closed {
		h.more.Wait()
	}
	if len(h.buf) == 0 {
		return 0, io.EOF
	}
	n := copy(p, h.buf)
	h.buf = h.buf[n:]
	return n, nil
}

func (h *pipeHalf) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return 0, io.ErrClosedPipe
	}
	h.buf = append(h.buf, p...)
	h.more.Broadcast()
	return len(p), nil
}

func (h *pipeHalf) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.more.Broadcast()
}

type memConn struct{ in, out *pipeHalf }

func (c *memConn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *memConn) Write(p []byte) (int, error) { return c.out.write(p) }
func (c *memConn) Close() error                { c.in.close(); c.out.close(); return nil }
func (c *memConn) LocalAddr() net.Addr         { return &net.TCPAddr{} }
func (c *memConn) RemoteAddr() net.Addr        { return &net.TCPAddr{} }

// Deadlines are not kept: the tests that use this set none.
func (c *memConn) SetDeadline(time.Time) error      { return nil }
func (c *memConn) SetReadDeadline(time.Time) error  { return nil }
func (c *memConn) SetWriteDeadline(time.Time) error { return nil }
