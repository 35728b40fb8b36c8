package httpserver_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/httpserver"
)

// serve runs Serve on a loopback port. stop ends its context and returns its error.
func serve(t *testing.T, cfg httpserver.Config) (addr string, stop func() error) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- httpserver.Serve(ctx, ln, cfg) }()
	stopped := false
	stop = func() error {
		cancel()
		stopped = true
		return <-done
	}
	t.Cleanup(func() {
		if !stopped {
			_ = stop()
		}
	})
	return ln.Addr().String(), stop
}

func get(t *testing.T, url string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// TestDrainLetsInFlightFinish expects that a request under way gets its answer after the
// end of ctx, and that no new connection is accepted.
func TestDrainLetsInFlightFinish(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	addr, stop := serve(t, httpserver.Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(started)
		<-release
		_, _ = io.WriteString(w, "done")
	})})
	answer := make(chan string, 1)
	go func() {
		body, err := get(t, "http://"+addr)
		answer <- fmt.Sprint(body, err)
	}()
	<-started
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	for { // the listener closes as soon as draining has begun
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			break
		}
		_ = c.Close()
	}
	select {
	case err := <-ended:
		t.Fatalf("Serve returned %v with a request in flight", err)
	default:
	}
	close(release)
	if got := <-answer; got != "done<nil>" {
		t.Errorf("the request in flight got %s", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("Serve = %v after a clean drain", err)
	}
}

// TestCutAfterDrain expects that a request that takes longer than Drain is cut, and that
// Serve says so.
func TestCutAfterDrain(t *testing.T) {
	started := make(chan struct{})
	gone := make(chan struct{})
	addr, stop := serve(t, httpserver.Config{Drain: 20 * time.Millisecond, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(started)
		<-r.Context().Done()
		close(gone)
	})})
	answer := make(chan error, 1)
	go func() {
		_, err := get(t, "http://"+addr)
		answer <- err
	}()
	<-started
	if err := stop(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Serve = %v, want context.DeadlineExceeded", err)
	}
	if err := <-answer; err == nil {
		t.Error("the request that was cut got an answer")
	}
	<-gone
}

func TestHeaderLimit(t *testing.T) {
	addr, _ := serve(t, httpserver.Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })})
	for size, want := range map[int]int{1 << 10: http.StatusOK, 64 << 10: http.StatusRequestHeaderFieldsTooLarge} {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nX-Long: %s\r\n\r\n", strings.Repeat("x", size))
		}()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != want {
			t.Errorf("header of %d bytes: %v, %v; want %d", size, resp, err, want)
		}
		if err == nil {
			_ = resp.Body.Close()
		}
		_ = c.Close()
	}
}

func caps(total, perAddress int) func() httpserver.Conns {
	return func() httpserver.Conns { return httpserver.Conns{Total: total, PerAddress: perAddress} }
}

// TestTotalConns expects that a connection above Total waits until another one is
// closed.
func TestTotalConns(t *testing.T) {
	entered := make(chan string, 3)
	release := make(chan struct{})
	addr, _ := serve(t, httpserver.Config{Conns: caps(2, 2), Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		entered <- r.URL.Path
		<-release
	})})
	answers := make(chan error, 3)
	ask := func(path string) {
		_, err := get(t, "http://"+addr+path)
		answers <- err
	}
	go ask("/1")
	<-entered
	go ask("/2")
	<-entered
	go ask("/3")
	select {
	case path := <-entered:
		t.Fatalf("%s was served as the third of two connections", path)
	case <-time.After(50 * time.Millisecond): // absence can only be waited for
	}
	close(release)
	if path := <-entered; path != "/3" {
		t.Errorf("%s entered, want /3", path)
	}
	for range 3 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
}

func TestServesTLS(t *testing.T) {
	// httptest brings a certificate for 127.0.0.1; the server under test is ours.
	brought := httptest.NewTLSServer(nil)
	defer brought.Close()
	addr, stop := serve(t, httpserver.Config{
		TLS:     &tls.Config{MinVersion: tls.VersionTLS13, Certificates: brought.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }),
	})
	pool := x509.NewCertPool()
	pool.AddCert(brought.Certificate())
	for want, h2 := range map[string]bool{"HTTP/2.0": true, "HTTP/1.1": false} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: h2}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+addr, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != want || resp.TLS.Version != tls.VersionTLS13 {
			t.Errorf("got %s, %v, TLS %x; want %s over 1.3", body, err, resp.TLS.Version, want)
		}
		_ = resp.Body.Close()
		transport.CloseIdleConnections()
	}
	if _, err := get(t, "http://"+addr); err != nil {
		t.Errorf("cleartext to a TLS port should get net/http's hint: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestBodyTimeout expects that a body that takes longer than BodyTimeout ends.
func TestBodyTimeout(t *testing.T) {
	read := make(chan error, 1)
	addr, _ := serve(t, httpserver.Config{BodyTimeout: 20 * time.Millisecond, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		read <- err
	})})
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if err := <-read; !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("the body ended with %v", err)
	}
}

func TestServeReportsABrokenListener(t *testing.T) {
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	if err := httpserver.Serve(t.Context(), ln, httpserver.Config{Handler: http.NotFoundHandler()}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve = %v, want net.ErrClosed", err)
	}
}
