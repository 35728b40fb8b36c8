package rotation_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/rotation"
)

// server opens an identity for "svc" and serves h with it.
func serve(t testing.TB, ca *testCA, h http.HandlerFunc) (*rotation.Identity, *pushed, string) {
	t.Helper()
	src := newPushed(ca.leaf(t, "svc", nil))
	id := open(t, src, 0)
	conf, err := id.ServerTLSConfig(rotation.ServerOptions{Authorize: rotation.AllowNames("client")})
	if err != nil {
		t.Fatal(err)
	}
	return id, src, listen(t, conf, h)
}

func get(t testing.TB, rt http.RoundTripper, addr string) (http.Header, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+addr+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return nil, err
	}
	return resp.Header, nil
}

func mustGet(t testing.TB, rt http.RoundTripper, addr string) http.Header {
	t.Helper()
	h, err := get(t, rt, addr)
	if err != nil {
		t.Fatalf("GET: %v", err)
	}
	return h
}

// TestRotateUnderLoad rotates both sides while requests and one long stream run. No
// request fails, none that starts after a rotation uses the older certificate, and the
// connections of older generations are closed.
func TestRotateUnderLoad(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(name, func(t *testing.T) {
			ca := newCA(t, "ca")
			longGo := make(chan struct{})
			_, serverSrc, addr := serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/long" {
					_ = http.NewResponseController(w).Flush()
					<-longGo
				}
				whoami(w, r)
			})
			src := newPushed(ca.leaf(t, "client", nil))
			id := open(t, src, time.Minute)
			tr := transport(t, id, rotation.TransportOptions{HTTP1Only: !h2})
			if proto := mustGet(t, tr, addr).Get("Proto"); proto != name {
				t.Fatalf("spoke %s", proto)
			}
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+addr+"/long", nil)
			long, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}

			var newest atomic.Uint64 // rotations whose push has returned
			order := map[string]uint64{serial(id): 0}
			next := make([]rotation.Material, 30)
			for i := range next {
				next[i] = ca.leaf(t, "client", nil)
				order[next[i].Certificate.Leaf.SerialNumber.String()] = uint64(i + 1)
			}
			var requests, stale, failed atomic.Int64
			stop := make(chan struct{})
			var wg sync.WaitGroup
			for range 6 {
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						atStart := newest.Load()
						h, err := get(t, tr, addr)
						requests.Add(1)
						switch {
						case err != nil:
							failed.Add(1)
							t.Errorf("request: %v", err)
						case order[h.Get("Serial")] < atStart:
							stale.Add(1)
						}
					}
				})
			}
			for i, m := range next {
				before := requests.Load()
				src.mustPush(t, m)
				newest.Store(uint64(i + 1))
				if i%5 == 0 {
					serverSrc.mustPush(t, ca.leaf(t, "svc", nil))
				}
				waitFor(t, "load", func() bool { return requests.Load() >= before+12 })
			}
			close(stop)
			wg.Wait()
			waitFor(t, "all generations but that of the long stream", func() bool { return id.Status().Draining == 1 })
			close(longGo)
			if b, err := io.ReadAll(long.Body); err != nil || string(b) != "ok" {
				t.Errorf("long stream: %q, %v", b, err)
			}
			waitFor(t, "draining", func() bool { return id.Status().Draining == 0 })
			if failed.Load() != 0 || stale.Load() != 0 {
				t.Errorf("%d requests: failed %d, stale %d", requests.Load(), failed.Load(), stale.Load())
			}
			// All of the last generation: net/http dials ahead, up to its limit of idle
			// connections. Had each of the 30 rotations left one, there would be more.
			if n := rotation.Conns(tr); n > 16 {
				t.Errorf("%d connections are left", n)
			}
			waitFor(t, "idle connections", func() bool {
				tr.CloseIdleConnections() // again: HTTP/2 counts a stream as live a moment longer than its reader
				return rotation.Conns(tr) == 0
			})
		})
	}
}

// waitFor polls a condition of real goroutines and sockets.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(5 * time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waiting for %s: timeout", what)
		case <-tick.C:
		}
	}
}

// TestHardClose expects that a superseded generation is cut after the drain timeout,
// leased or not.
func TestHardClose(t *testing.T) {
	ca := newCA(t, "ca")
	hang := make(chan struct{})
	defer close(hang)
	_, _, addr := serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	src := newPushed(ca.leaf(t, "client", nil))
	id := open(t, src, 50*time.Millisecond)
	tr := transport(t, id, rotation.TransportOptions{})
	lease := id.Lease()
	defer lease.Release()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+addr+"/", nil)
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	src.mustPush(t, ca.leaf(t, "client", nil))
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the body survived the grace")
	}
	_ = resp.Body.Close()
	waitFor(t, "the end", func() bool { return id.Status().Draining == 0 })
	if _, err := get(t, lease.RoundTripper(tr), addr); !errors.Is(err, rotation.ErrRetired) {
		t.Errorf("request on a retired lease: %v", err)
	}
}

// TestLease expects that a pinned generation works before and after it is superseded.
func TestLease(t *testing.T) {
	ca := newCA(t, "ca")
	_, _, addr := serve(t, ca, whoami)
	src := newPushed(ca.leaf(t, "client", nil))
	id := open(t, src, 0)
	tr := transport(t, id, rotation.TransportOptions{})
	lease, first := id.Lease(), serial(id)
	old := lease.RoundTripper(tr)
	if got := mustGet(t, old, addr).Get("Serial"); got != first {
		t.Errorf("before: %s, want %s", got, first)
	}
	src.mustPush(t, ca.leaf(t, "client", nil))
	if got := mustGet(t, old, addr).Get("Serial"); got != first {
		t.Errorf("after: %s, want the leased %s", got, first)
	}
	if got := mustGet(t, tr, addr).Get("Serial"); got != serial(id) || got == first {
		t.Errorf("unleased: %s, want the new identity", got)
	}
	if lease.Thumbprint() != lease.Generation().Thumbprint() || lease.Thumbprint() == id.Current().Thumbprint() {
		t.Error("thumbprint of the wrong generation")
	}
	if id.Status().Draining != 1 {
		t.Error("a leased generation must stay")
	}
	lease.Release()
	lease.Release()
	waitFor(t, "release", func() bool { return id.Status().Draining == 0 })
	if _, err := get(t, old, addr); !errors.Is(err, rotation.ErrRetired) {
		t.Errorf("request after release: %v", err)
	}
}

// TestUpgradeKeepsWriter expects that the body of a 101 response can be read and
// written.
func TestUpgradeKeepsWriter(t *testing.T) {
	ca := newCA(t, "ca")
	_, _, addr := serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = rw.Flush()
		line, _ := rw.ReadString('\n')
		_, _ = conn.Write([]byte(line))
	})
	src := newPushed(ca.leaf(t, "client", nil))
	id := open(t, src, 0)
	tr := transport(t, id, rotation.TransportOptions{})
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+addr+"/", nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	src.mustPush(t, ca.leaf(t, "client", nil))
	rw, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		t.Fatal("the body of 101 cannot be written")
	}
	_, _ = io.WriteString(rw, "hello\n")
	if line, err := bufio.NewReader(rw).ReadString('\n'); err != nil || line != "hello\n" {
		t.Errorf("echo %q, %v", line, err)
	}
	if id.Status().Draining != 1 {
		t.Error("the stream must hold its generation")
	}
	_ = rw.Close()
	waitFor(t, "release", func() bool { return id.Status().Draining == 0 })
}

// TestDialIPRefusesOtherName expects that the standard library checks names and
// addresses of servers.
func TestDialIPRefusesOtherName(t *testing.T) {
	ca := newCA(t, "ca")
	src := newPushed(noAddress(t, ca))
	id := open(t, src, 0)
	conf, err := id.ServerTLSConfig(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
	if err != nil {
		t.Fatal(err)
	}
	addr := listen(t, conf, http.HandlerFunc(whoami))
	client := open(t, rotation.Static(ca.leaf(t, "client", nil)), 0)
	tr := transport(t, client, rotation.TransportOptions{})
	if _, err := get(t, tr, addr); err == nil || !strings.Contains(err.Error(), "IP SAN") {
		t.Errorf("address without a certificate for it: %v", err)
	}
	_, port, _ := net.SplitHostPort(addr)
	if _, err := get(t, tr, "localhost:"+port); err != nil && !strings.Contains(err.Error(), "refused") {
		t.Errorf("name of the certificate: %v", err)
	}
}

func TestTransportRefusals(t *testing.T) {
	ca := newCA(t, "ca")
	id := open(t, rotation.Static(ca.leaf(t, "client", nil)), 0)
	body := &closeRecorder{}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1:1/", body)
	if _, err := transport(t, id, rotation.TransportOptions{}).RoundTrip(req); err == nil || !strings.Contains(err.Error(), "only https") {
		t.Errorf("cleartext: %v", err)
	}
	if !body.closed.Load() {
		t.Error("a refused request must close its body")
	}
	if _, err := id.Transport(rotation.TransportOptions{MinVersion: tls.VersionTLS11}); err == nil || !strings.Contains(err.Error(), "MinVersion") {
		t.Errorf("TLS 1.1: %v", err)
	}
	tr := transport(t, id, rotation.TransportOptions{})
	for range 2 {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := get(t, tr, "127.0.0.1:1"); !errors.Is(err, rotation.ErrClosed) {
		t.Errorf("closed transport: %v", err)
	}
	lease := id.Lease()
	other := transport(t, id, rotation.TransportOptions{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, io.ErrUnexpectedEOF }})
	if _, err := get(t, other, "127.0.0.1:1"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("failing dial: %v", err)
	}
	_ = id.Close()
	if _, err := get(t, other, "127.0.0.1:1"); !errors.Is(err, rotation.ErrClosed) {
		t.Errorf("closed identity: %v", err)
	}
	if _, err := get(t, lease.RoundTripper(other), "127.0.0.1:1"); !errors.Is(err, rotation.ErrRetired) {
		t.Errorf("lease of a closed identity: %v", err)
	}
	late := id.Lease()
	late.Release()
	if late.Generation() != id.Current() || id.Check() == nil {
		t.Error("after Close the last generation stays readable, and readiness fails")
	}
}

type closeRecorder struct{ closed atomic.Bool }

func (c *closeRecorder) Read([]byte) (int, error) { return 0, io.EOF }
func (c *closeRecorder) Close() error             { c.closed.Store(true); return nil }

// TestNewIdentityNeverResumes expects that a session is resumed only with the
// certificate that it was opened with.
func TestNewIdentityNeverResumes(t *testing.T) {
	ca := newCA(t, "ca")
	_, _, addr := serve(t, ca, whoami)
	src := newPushed(ca.leaf(t, "client", nil))
	id := open(t, src, 0)
	tr := transport(t, id, rotation.TransportOptions{})
	for i := range 20 {
		for again := range 2 {
			h := mustGet(t, tr, addr)
			if resumed := h.Get("Resumed") == "true"; resumed != (again == 1) || h.Get("Serial") != serial(id) {
				t.Errorf("rotation %d, connection %d: resumed %v as %s", i, again, resumed, h.Get("Serial"))
			}
			tr.CloseIdleConnections()
		}
		src.mustPush(t, ca.leaf(t, "client", nil))
	}
}
