package rotation_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/rotation"
)

// tunnels is a CONNECT proxy.
type tunnels struct {
	user, password string // wanted, unless ""
	opened         atomic.Int64
	asked          sync.Map // by address
}

func (p *tunnels) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
		return
	}
	if p.user != "" {
		r.Header.Set("Authorization", r.Header.Get("Proxy-Authorization"))
		if user, password, ok := r.BasicAuth(); !ok || user != p.user || password != p.password {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
	}
	p.asked.Store(r.Host, true)
	target, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", r.Host)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer func() { _ = target.Close() }()
	client, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = client.Close() }()
	_, _ = io.WriteString(client, "HTTP/1.1 200 Connection established\r\nProxy-Agent: test\r\n\r\n")
	p.opened.Add(1)
	go func() { _, _ = io.Copy(target, rw); _ = target.Close() }()
	_, _ = io.Copy(client, target)
}

// start serves p and returns its address; conf nil is in the clear.
func (p *tunnels) start(t testing.TB, conf *tls.Config) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	if conf != nil {
		ln = tls.NewListener(ln, conf)
	}
	srv := &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return ln.Addr().String()
}

// TestProxy expects that requests and raw connections go through the tunnel, with the
// own certificate for the server and none for the proxy.
func TestProxy(t *testing.T) {
	ca, corp := newCA(t, "ca"), newCA(t, "corp")
	_, _, addr := serve(t, ca, whoami)
	m := ca.leaf(t, "client", nil)
	src := newPushed(m)
	id := open(t, src, 0)
	proxyLeaf := corp.leaf(t, "proxy", nil).Certificate
	shown := make(chan int, 100)
	secure := &tls.Config{Certificates: []tls.Certificate{proxyLeaf}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12,
		VerifyConnection: func(cs tls.ConnectionState) error { shown <- len(cs.PeerCertificates); return nil }}
	trust := openTrust(t, rotation.Static(rotation.Material{Roots: []*x509.Certificate{corp.root}}), slog.New(slog.DiscardHandler))
	for name, opts := range map[string]rotation.TransportOptions{
		"http": {HTTP1Only: true}, "http, HTTP/2": {}, "https": {ProxyTrust: trust},
	} {
		t.Run(name, func(t *testing.T) {
			p := &tunnels{user: "svc", password: "p@ss:word"}
			u := &url.URL{Scheme: "http", User: url.UserPassword("svc", "p@ss:word")}
			if opts.ProxyTrust != nil {
				u.Scheme, u.Host = "https", p.start(t, secure)
			} else {
				u.Host = p.start(t, nil)
			}
			opts.Proxy = u
			tr := transport(t, id, opts)
			if h := mustGet(t, tr, addr); h.Get("Serial") != serial(id) {
				t.Errorf("the server saw %v", h)
			}
			c, err := tr.DialTLSContext(t.Context(), "tcp", addr)
			must(t, err)
			must(t, c.Close())
			if n := p.opened.Load(); n != 2 {
				t.Errorf("%d tunnels, want 2", n)
			}
			next := ca.leaf(t, "client", nil)
			src.mustPush(t, next)
			if h := mustGet(t, tr, addr); h.Get("Serial") != serial(id) || p.opened.Load() != 3 {
				t.Errorf("after a rotation the server saw %v over %d tunnels", h, p.opened.Load())
			}
			if _, ok := p.asked.Load(addr); !ok {
				t.Errorf("the proxy was not asked for %s", addr)
			}
			if opts.ProxyTrust != nil && <-shown != 0 {
				t.Error("the proxy was shown our certificate")
			}
			// The name of the server is checked through the tunnel as well.
			opts.ServerName = "other"
			if _, err := get(t, transport(t, id, opts), addr); err == nil {
				t.Error("another server's name was accepted through the proxy")
			}
		})
	}
	u := &url.URL{Scheme: "https", Host: (&tunnels{}).start(t, secure)}
	if _, err := get(t, transport(t, id, rotation.TransportOptions{Proxy: u}), addr); err == nil || !strings.Contains(err.Error(), "the proxy: tls") {
		t.Errorf("a proxy under a foreign root: %v", err)
	}
}

// TestProxyFromTheEnvironment expects that a proxy of the environment is not used.
func TestProxyFromTheEnvironment(t *testing.T) {
	ca := newCA(t, "ca")
	_, _, addr := serve(t, ca, whoami)
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"} {
		t.Setenv(name, "http://192.0.2.1:1")
	}
	_, port, err := net.SplitHostPort(addr)
	must(t, err)
	mustGet(t, transport(t, open(t, rotation.Static(ca.leaf(t, "client", nil)), 0), rotation.TransportOptions{}), "localhost:"+port)
}

// TestProxyRefuses expects that each refusal of a proxy is an error that names the proxy
// and never has the credentials.
func TestProxyRefuses(t *testing.T) {
	ca := newCA(t, "ca")
	id := open(t, rotation.Static(ca.leaf(t, "client", nil)), 0)
	const password = "S3cretOfTheProxy"
	for name, c := range map[string]struct{ answer, want string }{
		"refused":            {"HTTP/1.1 407 " + password + "\r\nProxy-Authenticate: Basic\r\n\r\n", "407 Proxy Authentication Required"},
		"forbidden":          {"HTTP/1.0 403 no\r\n\r\n", "403 Forbidden"},
		"informational":      {"HTTP/1.1 100 Continue\r\n\r\n", "100"},
		"garbage":            {"SSH-2.0-" + password + "\r\n\r\n", "did not answer in HTTP"},
		"nothing":            {"", "less than a header"},
		"half":               {"HTTP/1.1 200 OK\r\nX: " + password, "less than a header"},
		"endless header":     {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", "more than 16384 bytes"},
		"endless status":     {"HTTP/1.1 200 " + strings.Repeat("x", 1<<20), "more than 16384 bytes"},
		"speaks for another": {"HTTP/1.1 200 OK\r\n\r\n" + password, "more than its answer"},
		"a body":             {"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 1000000\r\n\r\n" + password, "502 Bad Gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			u := &url.URL{Scheme: "http", Host: answering(t, c.answer), User: url.UserPassword("me", password)}
			_, err := get(t, transport(t, id, rotation.TransportOptions{Proxy: u}), "storage.example:443")
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "the proxy") {
				t.Errorf("%v, want %q", err, c.want)
			}
			if text := fmt.Sprintf("%+v", err); strings.Contains(text, password) {
				t.Errorf("the error quotes the proxy or the credentials: %s", text)
			}
		})
	}
	for want, u := range map[string]*url.URL{
		"scheme":        {Scheme: "socks5", Host: "p:1", User: url.UserPassword("me", password)},
		"names no host": {Scheme: "http", Host: ":3128", User: url.UserPassword("me", password)},
		"has a path":    {Scheme: "http", Host: "p:1", Path: "/x", User: url.UserPassword("me", password)},
	} {
		_, err := id.Transport(rotation.TransportOptions{Proxy: u})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), password) {
			t.Errorf("%v, want %q and no credentials", err, want)
		}
	}
	u := &url.URL{Scheme: "http", Host: answering(t, "")}
	if _, err := transport(t, id, rotation.TransportOptions{Proxy: u}).DialTLSContext(t.Context(), "tcp", "a b:443"); err == nil || !strings.Contains(err.Error(), "cannot be asked") {
		t.Errorf("an address that is none: %v", err)
	}
}

// answering reads one request header, answers and closes.
func answering(t testing.TB, answer string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer func() { _ = c.Close() }()
				_, _ = http.ReadRequest(bufio.NewReader(c))
				_, _ = io.WriteString(c, answer)
			})
		}
	})
	t.Cleanup(func() { _ = ln.Close(); conns.Wait() })
	return ln.Addr().String()
}

// TestSlowProxy expects that a proxy that does not finish its answer has 10 s at most,
// and less if the context of the caller ends.
func TestSlowProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, "ca")
		id := open(t, rotation.Static(ca.leaf(t, "client", nil)), 0)
		dial := func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			go func() {
				_, _ = http.ReadRequest(bufio.NewReader(far))
				for _, err := io.WriteString(far, "HTTP/1.1 200 OK\r\nX: "); err == nil; _, err = io.WriteString(far, "y") {
					time.Sleep(time.Second)
				}
			}()
			return near, nil
		}
		tr := transport(t, id, rotation.TransportOptions{Proxy: &url.URL{Scheme: "http", Host: "proxy:3128"}, DialContext: dial})
		began := time.Now()
		_, err := tr.DialTLSContext(context.Background(), "tcp", "storage:443")
		if took := time.Since(began); err == nil || took > 11*time.Second || !strings.Contains(err.Error(), "in time") {
			t.Errorf("after %s: %v", took, err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		began = time.Now()
		_, err = tr.DialTLSContext(ctx, "tcp", "storage:443")
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took > 3*time.Second {
			t.Errorf("after %s: %v", took, err)
		}
		time.Sleep(5 * time.Second) // the proxies notice
	})
}

// FuzzProxyAnswer expects that the dial ends whatever a proxy answers, and that its
// error has no text of the proxy.
func FuzzProxyAnswer(f *testing.F) {
	for _, s := range []string{"", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nx", "HTTP/1.1 407 x\r\n\r\n", "HTTP/1.1 200\r\nA: b", "\x16\x03\x01"} {
		f.Add([]byte(s))
	}
	id := open(f, rotation.Static(newCA(f, "ca").leaf(f, "client", nil)), 0)
	f.Fuzz(func(t *testing.T, answer []byte) {
		near, far := net.Pipe()
		tr := transport(t, id, rotation.TransportOptions{
			Proxy:       &url.URL{Scheme: "http", Host: "proxy:1", User: url.UserPassword("me", "S3cretOfTheProxy")},
			DialContext: func(context.Context, string, string) (net.Conn, error) { return near, nil },
		})
		go func() {
			_, _ = http.ReadRequest(bufio.NewReader(far))
			_, _ = far.Write(answer)
			_ = far.Close()
		}()
		_, err := tr.DialTLSContext(t.Context(), "tcp", "storage:443")
		_ = tr.Close()
		if err == nil || strings.Contains(err.Error(), "S3cret") {
			t.Errorf("answer %q: %v", answer, err)
		}
	})
}
