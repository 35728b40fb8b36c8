package httpserver_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/httpserver"
)

// detaching serves /detach by detaching the request, and all else with "ok".
func detaching(t *testing.T, drain time.Duration) (addr string, stop func() error, detached chan *httpserver.Detached) {
	t.Helper()
	addr, stop, detached, _ = detachingWith(t, httpserver.Config{Drain: drain})
	return addr, stop, detached
}

// detachingWith also returns where it is told that a client has left.
func detachingWith(t *testing.T, cfg httpserver.Config) (addr string, stop func() error, detached chan *httpserver.Detached, gone chan struct{}) {
	t.Helper()
	detached, gone = make(chan *httpserver.Detached, 1), make(chan struct{}, 10)
	cfg.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/detach" {
			_, _ = io.WriteString(w, "ok")
			return
		}
		d, err := httpserver.Detach(w, r, func() { gone <- struct{}{} })
		if err != nil {
			t.Errorf("detach: %v", err)
		}
		detached <- d
	})
	addr, stop = serve(t, cfg)
	return addr, stop, detached, gone
}

// TestDetachedConnectionGoesOn expects that a detached request gets its answer, and that the
// same connection serves the next requests, detached or not.
func TestDetachedConnectionGoesOn(t *testing.T) {
	addr, _, detached := detaching(t, time.Second)
	c := dial(t, honest, addr)
	answers := bufio.NewReader(c)
	for i, last := range []bool{false, false, true} {
		if _, err := io.WriteString(c, "GET /detach HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		header := http.Header{"X-Test": {"yes"}}
		if last {
			header.Set("Connection", "close")
		}
		if err := (<-detached).Answer(http.StatusAccepted, header, []byte("later"), time.Second); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != "later" || resp.StatusCode != http.StatusAccepted || resp.Header.Get("X-Test") != "yes" || resp.Header.Get("Date") == "" || resp.Close != last {
			t.Errorf("request %d: %q %v %+v", i, body, err, resp)
		}
	}
	if _, err := answers.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last answer: %v", err)
	}
	again := dial(t, honest, addr)
	if _, err := io.WriteString(again, "GET /detach HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := (<-detached).Answer(http.StatusOK, http.Header{}, nil, time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := http.ReadResponse(bufio.NewReader(again), nil); err != nil {
		t.Fatal(err)
	}
	if status, err := ask(again); status != http.StatusOK {
		t.Errorf("an ordinary request after a detached one: %d %v", status, err)
	}
}

// TestDetachedAtTheEnd expects that a detached request can be answered while the server
// drains, and is cut afterwards.
func TestDetachedAtTheEnd(t *testing.T) {
	for _, answered := range []bool{true, false} {
		drain := time.Minute
		if !answered {
			drain = 20 * time.Millisecond
		}
		addr, stop, detached := detaching(t, drain)
		c := dial(t, honest, addr)
		if _, err := io.WriteString(c, "GET /detach HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		d := <-detached
		ended := make(chan error, 1)
		go func() { ended <- stop() }()
		if !answered {
			if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a request was cut: %v", err)
			}
			if err := d.Answer(http.StatusOK, http.Header{}, nil, time.Second); err == nil {
				t.Error("a request that was cut was answered")
			}
			continue
		}
		if err := d.Answer(http.StatusOK, http.Header{}, nil, time.Second); err != nil {
			t.Error(err)
		}
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%+v %v", resp, err)
		}
		if err := <-ended; err != nil {
			t.Errorf("after all were answered: %v", err)
		}
	}
}

// TestDetachRefuses expects that requests that cannot be detached are left to their handler.
func TestDetachRefuses(t *testing.T) {
	handler := func(w http.ResponseWriter, r *http.Request) {
		if _, err := httpserver.Detach(w, r, nil); !errors.Is(err, httpserver.ErrNotDetached) {
			t.Errorf("%s %s: %v", r.Proto, r.Method, err)
		}
	}
	inBubble(t, handler, func(t *testing.T, m *inMemory) { // HTTP/2
		p := m.connect(t, honest, 1<<20)
		p.request(http.MethodGet, true)
	})
	addr, _ := serve(t, httpserver.Config{Handler: http.HandlerFunc(handler)})
	c := dial(t, honest, addr)
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"); err != nil {
		t.Fatal(err)
	}
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%+v %v", resp, err)
	}
}

// TestDetachedClientLeaves expects that the end of a client is told once, over TCP and over
// TLS, in an orderly way or by a reset, and that the connection is closed.
func TestDetachedClientLeaves(t *testing.T) {
	t.Parallel()
	conf, pool := certificate(t)
	for name, secure := range map[string]bool{"TCP": false, "TLS": true} {
		for how, leave := range map[string]func(c, raw net.Conn) error{
			"closes": func(c, _ net.Conn) error { return c.Close() },
			"resets": func(_, raw net.Conn) error {
				return errors.Join(raw.(*net.TCPConn).SetLinger(0), raw.Close())
			},
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				var cfg httpserver.Config
				if secure {
					cfg.TLS = conf
				}
				addr, _, detached, gone := detachingWith(t, cfg)
				raw := dial(t, honest, addr)
				c := raw
				if secure {
					c = tls.Client(raw, &tls.Config{RootCAs: pool, ServerName: "example.com", MinVersion: tls.VersionTLS13})
				}
				if _, err := io.WriteString(c, "GET /detach HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				d := <-detached
				if err := leave(c, raw); err != nil {
					t.Fatal(err)
				}
				<-gone
				_ = d.Close() // fails for TLS, which has an alert to send
				if err := d.Answer(http.StatusOK, http.Header{}, nil, time.Second); err == nil {
					t.Error("a request that was given up was answered")
				}
				if len(gone) != 0 {
					t.Error("told twice")
				}
			})
		}
	}
}

// TestDetachedClientSends expects that a client that sends something while it waits has not
// left and gets its answer. After bytes of its next request the connection ends with the
// answer; after a part of a TLS record it goes on.
func TestDetachedClientSends(t *testing.T) {
	t.Parallel()
	conf, pool := certificate(t)
	for name, partial := range map[string]bool{"a request": false, "a part of a record": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, _, detached, gone := detachingWith(t, httpserver.Config{TLS: conf, Drain: 20 * time.Millisecond})
			open := func() (c *tls.Conn, raw net.Conn, d *httpserver.Detached) {
				raw = dial(t, honest, addr)
				c = tls.Client(raw, &tls.Config{RootCAs: pool, ServerName: "example.com", MinVersion: tls.VersionTLS13})
				if _, err := io.WriteString(c, "GET /detach HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				return c, raw, <-detached
			}
			c, raw, d := open()
			send := func() (int, error) { return io.WriteString(c, "GET / HT") }
			if partial {
				send = func() (int, error) { return raw.Write([]byte{23, 3, 3}) } // RFC 8446 §5.1
			}
			if _, err := send(); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second one leaves after the first client was looked at
				leaver, _, left := open()
				if err := leaver.Close(); err != nil {
					t.Fatal(err)
				}
				<-gone
				_ = left.Close()
			}
			if err := d.Answer(http.StatusOK, http.Header{}, nil, time.Second); err != nil {
				t.Error(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || resp.Close != !partial || len(gone) != 0 {
				t.Errorf("%+v %v, %d have left", resp, err, len(gone))
			}
		})
	}
}

// TestDetachedConnectionsEndAtOnce expects that a connection that has come back does not delay
// the end of the server, which would wait for five seconds for a new one.
func TestDetachedConnectionsEndAtOnce(t *testing.T) {
	addr, stop, detached := detaching(t, 4*time.Second)
	c := dial(t, honest, addr)
	if _, err := io.WriteString(c, "GET /detach HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := (<-detached).Answer(http.StatusOK, http.Header{}, nil, time.Second); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Errorf("the end of the server: %v", err)
	}
}

// certificate returns a configuration for servers of TLS 1.3 over HTTP/1.1, and who trusts it.
func certificate(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	server.Close()
	trusting := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	return &tls.Config{Certificates: server.TLS.Certificates, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}, trusting
}
