package proxy_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/rotation/proxy"
)

// TestBothSidesTCP sends data from a program without TLS through both sides to a service
// without TLS and back, over sockets and over loopback. The end of each direction arrives by
// itself: the service answers after it has seen the end of what it was sent.
func TestBothSidesTCP(t *testing.T) {
	t.Parallel()
	sum := func(c *net.TCPConn) {
		h := sha256.New()
		n, err := io.Copy(h, c)
		_, _ = fmt.Fprintf(c, "%d %x %v", n, h.Sum(nil), err)
	}
	for name, unix := range map[string]bool{"loopback": false, "socket": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s, server := w.server(tcpService(t, sum))
			ln, network := listen(t), "tcp"
			if unix {
				_ = ln.Close()
				ln, _ = listenUnix(t)
				network = "unix"
			}
			c, client := w.clientSide(ln, server.addr)
			conn, err := (&net.Dialer{}).DialContext(t.Context(), network, client.addr)
			must(t, err)
			data := make([]byte, 3<<20)
			_, _ = rand.Read(data)
			_, err = io.Copy(conn, bytes.NewReader(data))
			must(t, err)
			must(t, conn.(interface{ CloseWrite() error }).CloseWrite())
			got, err := io.ReadAll(conn)
			must(t, err)
			if want := fmt.Sprintf("%d %x <nil>", len(data), sha256.Sum256(data)); string(got) != want {
				t.Errorf("the service says %q, want %q", got, want)
			}
			must(t, conn.Close())
			await(t, "both sides to have no connection", func() bool { return s.Stats().Connections+c.Stats().Connections == 0 })
			st := s.Stats()
			if st.Accepted != 1 || st.Received < uint64(len(data)) || st.Sent == 0 {
				t.Errorf("figures of the server: %+v", st)
			}
			for kind, n := range st.Failures() {
				if n != 0 {
					t.Errorf("%d failures of kind %s: %s", n, kind, w.logs)
				}
			}
		})
	}
}

// TestTruncationIsNoEnd expects that a connection of TLS that ends without close_notify
// reaches the service as an error, and a reset of the service the peer.
func TestTruncationIsNoEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seen := make(chan error, 1)
	s, server := w.server(tcpService(t, func(c *net.TCPConn) {
		_, err := io.Copy(io.Discard, c)
		seen <- err
	}))
	c := w.dial(server.addr)
	_, err := io.WriteString(c, "the beginning")
	must(t, err)
	must(t, c.NetConn().Close()) // an attacker in the network can do this
	if err := <-seen; err == nil {
		t.Error("the service saw a regular end")
	}
	await(t, "the failure to count", func() bool { return failures(s.Stats(), "peer") == 1 })

	s, server = w.server(tcpService(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "the beginning")
		_, _ = c.Read(make([]byte, 1))
		must(t, c.SetLinger(0))
	}))
	c = w.dial(server.addr)
	_, err = io.ReadFull(c, make([]byte, len("the beginning")))
	must(t, err)
	_, err = io.WriteString(c, "x")
	must(t, err)
	wantAborted(t, c)
	await(t, "the failure to count", func() bool { return failures(s.Stats(), "broken") == 1 })
}

// TestLastWords expects that a peer reads why a service refuses what it is sent, though the
// service does not read it.
func TestLastWords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, server := w.server(tcpService(t, func(c *net.TCPConn) {
		must(t, c.CloseRead())
		_, err := io.WriteString(c, "too many clients")
		must(t, err)
	}))
	c := w.dial(server.addr)
	got := make([]byte, len("too many clients"))
	_, err := io.ReadFull(c, got)
	must(t, err)
	if string(got) != "too many clients" {
		t.Errorf("the peer reads %q", got)
	}
}

// TestServiceAway expects that a peer is told at once, and not by a regular end, that there is
// no service, and that this counts and makes the proxy not ready. When the service is back,
// the next connection succeeds.
func TestServiceAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "s")
	s, server := w.server("unix:" + path)
	wantAborted(t, w.dial(server.addr))
	await(t, "the failure to count", func() bool { return failures(s.Stats(), "unreachable") == 1 })
	if err := s.Ready(t.Context()); err == nil {
		t.Error("the proxy is ready without its service")
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	must(t, err)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	defer func() { _ = ln.Close() }()
	must(t, s.Ready(t.Context()))
	c := w.dial(server.addr)
	_, err = io.WriteString(c, "hello")
	must(t, err)
	must(t, c.CloseWrite())
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestServerAway expects that a program of the client side gets a reset when the server is
// away, is another one, or is not allowed, and that the client side stays ready.
func TestServerAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, server := w.server(tcpService(t, echo))
	gone := listen(t)
	must(t, gone.Close())
	for name, edit := range map[string]func(*proxy.ClientConfig){
		"away":         func(c *proxy.ClientConfig) { c.To = address(t, gone.Addr().String()) },
		"another name": func(c *proxy.ClientConfig) { c.ServerName = "admin" },
		"not allowed":  func(c *proxy.ClientConfig) { c.AllowServer = []string{"spiffe://artstore.test/other"} },
	} {
		t.Run(name, func(t *testing.T) {
			c, client := w.clientSide(listen(t), server.addr, edit)
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", client.addr)
			if err == nil { // a reset can come before connect has returned
				must(t, conn.SetDeadline(time.Now().Add(patience)))
				wantAborted(t, conn)
			}
			await(t, "the failure to count", func() bool { return failures(c.Stats(), "unreachable") == 1 })
			must(t, c.Ready(t.Context()))
		})
	}
}

// TestIdle expects that a connection without a byte is cut at both ends, and one with a byte now and
// then is not.
func TestIdle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seen := make(chan error, 1)
	s, server := w.server(tcpService(t, func(c *net.TCPConn) {
		_, err := io.Copy(c, c)
		seen <- err
	}), func(c *proxy.ServerConfig) { c.Limits.Idle = 100 * time.Millisecond })
	c := w.dial(server.addr)
	wantAborted(t, c)
	if err := <-seen; err == nil {
		t.Error("the service saw a regular end")
	}
	await(t, "the failure to count", func() bool { return failures(s.Stats(), "idle") == 1 })
	_, server = w.server(tcpService(t, echo), func(c *proxy.ServerConfig) { c.Limits.Idle = 30 * time.Second })
	c = w.dial(server.addr)
	for range 5 {
		_, err := io.WriteString(c, "x")
		must(t, err)
		_, err = io.ReadFull(c, make([]byte, 1))
		must(t, err)
	}
}

// TestStop expects that connections may finish after the end, and are cut after Limits.Stop.
func TestStop(t *testing.T) {
	t.Parallel()
	for name, finishes := range map[string]bool{"finishes": true, "does not": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s, server := w.server(tcpService(t, echo), func(c *proxy.ServerConfig) {
				if !finishes {
					c.Limits.Stop = 50 * time.Millisecond
				}
			})
			c := w.dial(server.addr)
			_, err := io.WriteString(c, "x")
			must(t, err)
			_, err = io.ReadFull(c, make([]byte, 1))
			must(t, err)
			ended := make(chan error, 1)
			go func() { ended <- server.stop() }()
			if !finishes {
				if err := <-ended; err == nil {
					t.Error("a connection was cut, and Serve returned nil")
				}
				wantAborted(t, c)
				return
			}
			await(t, "the listener to close", func() bool {
				conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.addr)
				if err == nil {
					_ = conn.Close()
				}
				return err != nil
			})
			_, err = io.WriteString(c, "y")
			must(t, err)
			must(t, c.CloseWrite())
			if got, err := io.ReadAll(c); err != nil || string(got) != "y" {
				t.Errorf("after the end: %q, %v", got, err)
			}
			must(t, <-ended)
			if n := s.Stats().Connections; n != 0 {
				t.Errorf("%d connections are left", n)
			}
		})
	}
}

// TestRefusesPeers expects that only peers on the list are passed on, and others are counted by the
// identity.
func TestRefusesPeers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	reached := make(chan struct{}, 8)
	s, server := w.server(tcpService(t, func(c *net.TCPConn) { reached <- struct{}{}; echo(c) }), func(c *proxy.ServerConfig) { c.Allow = []string{"spiffe://artstore.test/other", "somebody"} })
	c := w.dial(server.addr) // a TLS 1.3 client has finished before it is refused
	wantAborted(t, c)
	await(t, "the refusal to count", func() bool { return w.serverID.Status().RefusedPeers.Denied == 1 })
	await(t, "the connection to end", func() bool { return s.Stats().Connections == 0 })
	if len(reached) != 0 {
		t.Error("the service was reached")
	}
	_, server = w.server(tcpService(t, echo), func(c *proxy.ServerConfig) { c.Allow = []string{spiffeID} })
	c = w.dial(server.addr)
	must(t, c.CloseWrite())
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("a peer with a SPIFFE ID on the list: %v", err)
	}
}

// TestCleartextStaysHere expects that neither side listens or connects beyond this machine
// without TLS, unless that was asked for.
func TestCleartextStaysHere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, to := range []string{"192.0.2.1:80", "app:80", "0.0.0.0:80", "[2001:db8::1]:80", "localhost.example:80"} {
		cfg := proxy.ServerConfig{Identity: w.serverID, Allow: []string{clientName}, To: address(t, to)}
		if _, err := proxy.NewServer(cfg); !errors.Is(err, proxy.ErrCleartext) {
			t.Errorf("a service at %s: %v", to, err)
		}
		cfg.AllowCleartext = true
		_, err := proxy.NewServer(cfg)
		must(t, err)
	}
	for _, to := range []string{"127.0.0.1:80", "127.8.0.1:80", "[::1]:80", "localhost:80", "unix:/run/app.sock"} {
		_, err := proxy.NewServer(proxy.ServerConfig{Identity: w.serverID, Allow: []string{clientName}, To: address(t, to)})
		must(t, err)
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "0.0.0.0:0")
	must(t, err)
	c, err := proxy.NewClient(proxy.ClientConfig{Identity: w.clientID, To: address(t, "storage:443")})
	must(t, err)
	defer func() { must(t, c.Close()) }()
	if err := c.Serve(t.Context(), ln); !errors.Is(err, proxy.ErrCleartext) {
		t.Errorf("a listener on all addresses: %v", err)
	}
	if conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("the refused listener is open")
	}
}
