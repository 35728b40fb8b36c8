//go:build unix

package tokensocket

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"testing"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The end of the server removes the socket.
func TestRemovedAtTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.token()
	must(t, w.stop())
	if _, err := os.Lstat(w.path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", w.path, err)
	}
}

// Clients that say nothing, or stop in the middle, do not keep the token from
// others for longer than a timeout, as many as there may be.
func TestSlowClients(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	t.Parallel()
	w := newWorld(t)
	w.token()
	hold := func(say string) {
		c, err := new(net.Dialer).DialContext(t.Context(), "unix", w.path)
		must(t, err)
		t.Cleanup(func() { _ = c.Close() })
		_, err = io.WriteString(c, say)
		must(t, err)
	}
	lines := []string{"", "GET /tok", "GET /token HTTP/1.1\r\nHost: x\r\n", "POST /token/reject HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\ntok"}
	for i := range maxConns / 2 {
		hold(lines[i%len(lines)])
	}
	w.token() // at half of what there may be it is answered as ever
	for i := range maxConns {
		hold(lines[i%len(lines)])
	}
	w.token() // and beyond it when the first of them have used up their time
}

// A client that asks without reading what it is answered costs its connection only.
func TestClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, err := new(net.Dialer).DialContext(t.Context(), "unix", w.path)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	var asking = make(chan struct{})
	go func() {
		defer close(asking)
		for ctx.Err() == nil {
			if _, err := io.WriteString(c, "GET /token HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				return // the server has had enough
			}
		}
	}()
	for range 10 {
		if r := w.get(); r.status != http.StatusOK {
			t.Errorf("beside a client that does not read: status %d", r.status)
		}
	}
	cancel()
	_ = c.Close()
	<-asking
}
