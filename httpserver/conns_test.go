package httpserver_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/artstore/artstore-pki/httpserver"
)

const (
	honest   = "127.0.0.1"
	attacker = "127.0.0.66" // loopback is a /8 on Linux
)

// connect dials from an address of this machine.
func connect(t *testing.T, from, to string) (net.Conn, error) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(t.Context(), "tcp", to)
	if err == nil {
		t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

func dial(t *testing.T, from, to string) net.Conn {
	t.Helper()
	c, err := connect(t, from, to)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// awaitAnswer connects until a connection is answered, which then stays open: the
// server learns in its own time that others were closed.
func awaitAnswer(t *testing.T, from, to string) {
	t.Helper()
	for {
		c, err := connect(t, from, to)
		if err == nil {
			_, err = ask(c)
		}
		if err == nil {
			return
		}
	}
}

// ask sends a request over an open connection and returns the status.
func ask(c net.Conn) (status int, err error) {
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, errors.Join(err, resp.Body.Close())
}

// wantClosed connects and waits for the server's end: a reset, which may come
// before connect returns, or EOF. It says nothing, so an answer cannot come either.
func wantClosed(t *testing.T, from, to string) {
	t.Helper()
	c, err := connect(t, from, to)
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection above the cap of its address: %v; want it closed", err)
	}
}

// TestOneAddressAtItsCap expects that a further connection of an address at its cap is
// closed at once, that another address is answered, and that the first is served again
// as soon as it has room.
func TestOneAddressAtItsCap(t *testing.T) {
	const most = 4
	var refused atomic.Int32
	addr, _ := serve(t, httpserver.Config{
		Conns:   caps(4*most, most),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }),
		Refused: func(what string) {
			if what == httpserver.LimitConns {
				refused.Add(1)
			}
		},
	})
	var held []net.Conn
	for range most {
		c := dial(t, attacker, addr)
		if status, err := ask(c); status != http.StatusOK {
			t.Fatalf("a connection below the cap: %d, %v", status, err)
		}
		held = append(held, c)
	}
	const more = 50 // more than Total has room for, were they to count
	for range more {
		wantClosed(t, attacker, addr)
	}
	for range most {
		if status, err := ask(dial(t, honest, addr)); status != http.StatusOK {
			t.Errorf("another address beside one at its cap: %d, %v", status, err)
		}
	}
	if n := refused.Load(); n != more {
		t.Errorf("%d refusals were reported, want %d", n, more)
	}
	_ = held[0].Close()
	awaitAnswer(t, attacker, addr)
}

// TestCapCountsSilentConnections expects that a connection counts before it has sent
// anything, and that its place is returned once, however often it is closed.
func TestCapCountsSilentConnections(t *testing.T) {
	addr, _ := serve(t, httpserver.Config{Conns: caps(16, 2), Handler: http.NotFoundHandler()})
	silent := []net.Conn{dial(t, attacker, addr), dial(t, attacker, addr)}
	wantClosed(t, attacker, addr)
	for _, c := range silent {
		_ = c.Close()
	}
	for range silent { // both places are back; what is answered stays open
		awaitAnswer(t, attacker, addr)
	}
	wantClosed(t, attacker, addr)
}

// TestCapsChange expects that changed caps count for the next connection.
func TestCapsChange(t *testing.T) {
	var most atomic.Int32
	most.Store(1)
	addr, _ := serve(t, httpserver.Config{
		Conns:   func() httpserver.Conns { return httpserver.Conns{Total: 16, PerAddress: int(most.Load())} },
		Handler: http.NotFoundHandler(),
	})
	first := dial(t, honest, addr)
	if status, err := ask(first); status != http.StatusNotFound {
		t.Fatal(status, err)
	}
	wantClosed(t, honest, addr)
	most.Store(2)
	if status, err := ask(dial(t, honest, addr)); status != http.StatusNotFound {
		t.Errorf("after the cap was raised: %d, %v", status, err)
	}
}

// TestCapsUnderConcurrency opens many connections at once: the open ones never exceed a
// cap, and no place is lost.
func TestCapsUnderConcurrency(t *testing.T) {
	const total, per = 6, 4
	var open, most atomic.Int32
	addr, _ := serve(t, httpserver.Config{Conns: caps(total, per), Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		n := open.Add(1)
		defer open.Add(-1)
		for {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				return
			}
		}
	})})
	var wg sync.WaitGroup
	for _, from := range []string{honest, attacker, "127.0.0.67"} {
		for range 20 {
			wg.Go(func() {
				if c, err := connect(t, from, addr); err == nil { // some are over the cap of their address
					_, _ = ask(c)
					_ = c.Close()
				}
			})
		}
	}
	wg.Wait()
	if n := most.Load(); n > total {
		t.Errorf("%d requests at once over %d connections", n, total)
	}
	for range per { // all places are back
		awaitAnswer(t, honest, addr)
	}
}
