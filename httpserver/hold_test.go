package httpserver_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/artstore/artstore-pki/httpserver"
)

// TestHeldRequestsLeaveRoom expects that requests that are held take no place of others,
// neither of connections nor of open requests, that they have a cap of their own, and
// that requests that are not held still have theirs.
func TestHeldRequestsLeaveRoom(t *testing.T) {
	const held = 5
	holding, release := make(chan error, 2*held), make(chan struct{})
	addr, _ := serve(t, httpserver.Config{
		Conns: func() httpserver.Conns { return httpserver.Conns{Total: 2, PerAddress: 1} },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/hold" {
				err := httpserver.Hold(r, r.RemoteAddr, httpserver.Held{Total: held, PerOwner: 2})
				holding <- err
				if err == nil {
					<-release
				}
			}
			_, _ = io.WriteString(w, "ok")
		}),
	})
	var waiting []net.Conn
	for range held {
		c := dial(t, honest, addr)
		if _, err := io.WriteString(c, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if err := <-holding; err != nil {
			t.Fatalf("request %d is not held: %v", len(waiting), err)
		}
		waiting = append(waiting, c)
	}
	ordinary := dial(t, honest, addr) // the one place of the address
	for range 2 {
		if status, err := ask(ordinary); status != http.StatusOK {
			t.Errorf("beside %d held requests: %d %v", held, status, err)
		}
	}
	second, err := connect(t, honest, addr)
	if err == nil {
		_, err = ask(second)
	}
	if err == nil {
		t.Error("a second ordinary connection of the address was answered")
	}
	if _, err := io.WriteString(ordinary, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-holding; !errors.Is(err, httpserver.ErrHeld) {
		t.Errorf("request beyond the cap of held ones: %v", err)
	}
	close(release)
	for _, c := range waiting {
		buf := make([]byte, 12)
		if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "HTTP/1.1 200" {
			t.Errorf("a held request got %q, %v", buf, err)
		}
	}
}
