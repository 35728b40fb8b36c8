package proxy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/proxy"
)

// TestLargeHeaders expects limits on the headers of requests and of answers.
func TestLargeHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, server := w.server(httpService(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			rw.Header().Set("X-Large", strings.Repeat("x", 1<<20))
		}
	})), http1)
	_, client := w.clientSide(listen(t), server.addr, func(c *proxy.ClientConfig) { c.Protocol = proxy.HTTP })
	for _, overHTTP2 := range []bool{false, true} {
		c := w.over(server.addr, rotation.TransportOptions{HTTP1Only: !overHTTP2})
		req := request(t, http.MethodGet, "https://svc/", "")
		req.Header.Set("X-Large", strings.Repeat("x", 100<<10))
		resp, err := c.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("a header of 100 KiB: %s", resp.Status)
			}
		}
		if resp, _ := do(t, c, request(t, http.MethodGet, "https://svc/large", "")); resp.StatusCode != http.StatusBadGateway {
			t.Errorf("an answer with a header of 1 MiB: %s", resp.Status)
		}
	}
	req := request(t, http.MethodGet, "http://"+client.addr, "")
	req.Header.Set("X-Large", strings.Repeat("x", 100<<10))
	if resp, err := plainClient().Do(req); err == nil { // a reset may come before the answer
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("a header of 100 KiB at the client side: %s", resp.Status)
		}
	}
}

// TestSlowHeaders expects at both sides that a header that never ends and a connection without a request end,
// in TLS also one without a handshake.
func TestSlowHeaders(t *testing.T) {
	t.Parallel()
	for name, plain := range map[string]bool{"server": false, "client": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				network := pkitest.NewNetwork()
				if plain {
					c, err := proxy.NewClient(proxy.ClientConfig{Identity: w.clientID, To: address(t, "svc:443"), Protocol: proxy.HTTP, AllowCleartext: true, Logger: w.log})
					must(t, err)
					defer func() { must(t, c.Close()) }()
					run(t, network, c)
				} else {
					s, err := proxy.NewServer(proxy.ServerConfig{Identity: w.serverID, Allow: []string{clientName}, To: address(t, "127.0.0.1:1"), Protocol: proxy.HTTP, Logger: w.log})
					must(t, err)
					run(t, network, s)
				}
				for _, sent := range []string{"", "GET / HTTP/1.1\r\nHost: localhost\r\nX: "} {
					raw, err := network.Dial(t.Context(), "", "")
					must(t, err)
					var c io.ReadWriteCloser = raw
					if !plain && sent != "" {
						tr := w.transport(rotation.TransportOptions{})
						c, err = tr.Handshake(t.Context(), raw, serverName)
						must(t, err)
					}
					_, err = io.WriteString(c, sent)
					must(t, err)
					began := time.Now()
					_, _ = io.ReadAll(c) // ends in any case: time passes while all wait
					if took := time.Since(began); took > 3*time.Minute {
						t.Errorf("after %q the connection stays open for %s", sent, took)
					}
					_ = c.Close() // the other end has closed it
				}
			})
		})
	}
}

// TestFlood expects that connections without a handshake do not keep others away: one address
// has a cap, in TCP and in HTTP.
func TestFlood(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*proxy.ServerConfig){"TCP": func(*proxy.ServerConfig) {}, "HTTP": http1} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			_, server := w.server(httpService(t, http.HandlerFunc(show)), edit, func(c *proxy.ServerConfig) { c.Limits.MaxConns, c.Limits.MaxConnsPerAddress = 16, 4 })
			attacker := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.66")}} // loopback is a /8 on Linux
			var held []net.Conn
			for range 64 {
				c, err := attacker.DialContext(t.Context(), "tcp", server.addr)
				if err == nil {
					held = append(held, c)
				}
			}
			if resp, _ := do(t, w.over(server.addr, rotation.TransportOptions{HTTP1Only: true}), request(t, http.MethodGet, "https://svc/", "")); resp.StatusCode != http.StatusOK {
				t.Errorf("beside a flood: %s", resp.Status)
			}
			for _, c := range held {
				_ = c.Close()
			}
		})
	}
}

// TestOpenRequestsOfOneAddress expects that one address cannot occupy the service by many
// requests over one connection, that another address is served meanwhile, and that the first
// is served again when its requests have ended.
func TestOpenRequestsOfOneAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	release := make(chan struct{})
	s, server := w.server(httpService(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			_ = http.NewResponseController(rw).Flush()
			<-release
		}
	})), http1, func(c *proxy.ServerConfig) { c.Limits.MaxConns, c.Limits.MaxConnsPerAddress = 8, 2 })
	first := w.over(server.addr, rotation.TransportOptions{})
	for range 2 {
		resp, err := first.Do(request(t, http.MethodGet, "https://svc/wait", ""))
		must(t, err)
		defer func() { _ = resp.Body.Close() }()
	}
	if resp, body := do(t, first, request(t, http.MethodGet, "https://svc/", "")); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a third request: %s %s", resp.Status, body)
	}
	if n := failures(s.Stats(), "request"); n != 1 {
		t.Errorf("%d refusals counted", n)
	}
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.66")}} // loopback is a /8 on Linux
	second := &http.Client{Timeout: patience, Transport: w.transport(rotation.TransportOptions{ServerName: serverName, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return from.DialContext(ctx, network, server.addr)
	}})}
	if resp, _ := do(t, second, request(t, http.MethodGet, "https://svc/", "")); resp.StatusCode != http.StatusOK {
		t.Errorf("another address: %s", resp.Status)
	}
	close(release)
	await(t, "room for the first address", func() bool {
		resp, _ := do(t, first, request(t, http.MethodGet, "https://svc/", ""))
		return resp.StatusCode == http.StatusOK
	})
}

// TestBackpressure expects that a service that does not read stops its peer, and that nothing
// is lost when it reads again.
func TestBackpressure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	read, total := make(chan struct{}), make(chan int64, 1)
	_, server := w.server(tcpService(t, func(c *net.TCPConn) {
		<-read
		n, _ := io.Copy(io.Discard, c)
		total <- n
	}))
	c := w.dial(server.addr)
	const most = 64 << 20 // all buffers of the kernel on the way are less
	var sent atomic.Int64
	wrote := make(chan error, 1)
	go func() {
		for chunk := make([]byte, 64<<10); sent.Load() < most; sent.Add(int64(len(chunk))) {
			if _, err := c.Write(chunk); err != nil {
				wrote <- err
				return
			}
		}
		wrote <- c.CloseWrite()
	}()
	last := int64(-1)
	await(t, "the peer to stop", func() bool {
		before := last
		last = sent.Load()
		time.Sleep(200 * time.Millisecond)
		return before == last && last > 0
	})
	if last >= most {
		t.Errorf("%d MiB were taken for a service that does not read", last>>20)
	}
	close(read)
	must(t, <-wrote)
	if got := <-total; got != most {
		t.Errorf("the service got %d of %d bytes", got, most)
	}
}

// TestBadConfigurations expects an error for what could not be meant.
func TestBadConfigurations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := proxy.ServerConfig{Identity: w.serverID, Allow: []string{clientName}, To: address(t, "127.0.0.1:80")}
	for what, edit := range map[string]func(*proxy.ServerConfig){
		"no identity":        func(c *proxy.ServerConfig) { c.Identity = nil },
		"nobody allowed":     func(c *proxy.ServerConfig) { c.Allow = nil },
		"an empty name":      func(c *proxy.ServerConfig) { c.Allow = []string{""} },
		"a name of two":      func(c *proxy.ServerConfig) { c.Allow = []string{"a, b"} },
		"no service":         func(c *proxy.ServerConfig) { c.To = proxy.Address{} },
		"PROXY in HTTP":      func(c *proxy.ServerConfig) { c.Protocol, c.ProxyHeader = proxy.HTTP, true },
		"header Host":        func(c *proxy.ServerConfig) { c.IdentityHeader = "Host" },
		"header X-Forwarded": func(c *proxy.ServerConfig) { c.IdentityHeader = "X-Forwarded-User" },
		"header with _":      func(c *proxy.ServerConfig) { c.IdentityHeader = "X_User" },
		"header with break":  func(c *proxy.ServerConfig) { c.IdentityHeader = "X-User\r\nX" },
		"a negative limit":   func(c *proxy.ServerConfig) { c.Limits.Idle = -1 },
		"a negative drain":   func(c *proxy.ServerConfig) { c.DrainTimeout = -1 },
	} {
		c := good
		edit(&c)
		if _, err := proxy.NewServer(c); err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
	for what, edit := range map[string]func(*proxy.ClientConfig){
		"no identity":      func(c *proxy.ClientConfig) { c.Identity = nil },
		"no server":        func(c *proxy.ClientConfig) { c.To = proxy.Address{} },
		"a socket":         func(c *proxy.ClientConfig) { c.To = address(t, "unix:/x") },
		"a wrong name":     func(c *proxy.ClientConfig) { c.ServerName = "*.example" },
		"an empty name":    func(c *proxy.ClientConfig) { c.AllowServer = []string{""} },
		"a negative limit": func(c *proxy.ClientConfig) { c.Limits.Stop = -1 },
	} {
		c := proxy.ClientConfig{Identity: w.clientID, To: address(t, "storage:443")}
		edit(&c)
		if _, err := proxy.NewClient(c); err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
	for _, text := range []string{"", "80", "host", "host:http", "host:99999", "unix:", "[::1", "a:b:c"} {
		if a, err := proxy.ParseAddress(text); err == nil {
			t.Errorf("%q is %v", text, a)
		}
	}
	for text, want := range map[string]string{"unix:/run/s": "unix:/run/s", "[::1]:80": "[::1]:80", ":80": ":80"} {
		if got := address(t, text).String(); got != want {
			t.Errorf("%q is %q", text, got)
		}
	}
	c, err := proxy.NewClient(proxy.ClientConfig{Identity: w.clientID, To: address(t, "storage:443"), UIDs: []int{1}})
	must(t, err)
	defer func() { must(t, c.Close()) }()
	if err := c.Serve(t.Context(), listen(t)); err == nil || errors.Is(err, proxy.ErrCleartext) {
		t.Errorf("users on a listener of TCP: %v", err)
	}
}
