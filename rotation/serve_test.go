package rotation_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/rotation"
)

// serving is a Serve that runs; stop ends its ctx, and the test waits for its end.
type serving struct {
	addr string
	stop context.CancelFunc
	done chan error
}

func serveWith(t testing.TB, s *rotation.Server, h http.HandlerFunc) *serving {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &serving{ln.Addr().String(), cancel, make(chan error, 1)}
	go func() { r.done <- s.Serve(ctx, ln, h) }()
	t.Cleanup(cancel)
	return r
}

// TestServeSaysGoodbye expects that connections beyond MaxAge are drained and none is
// cut, while both sides renew their certificates ten times, and that no request fails.
func TestServeSaysGoodbye(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			ca := newCA(t, "ca")
			serverSrc, clientSrc := newPushed(ca.leaf(t, "svc", nil)), newPushed(ca.leaf(t, "client", nil))
			id := open(t, serverSrc, 0)
			s, err := id.Server(rotation.ServerOptions{Authorize: rotation.AllowNames("client"), MaxAge: 20 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			r := serveWith(t, s, whoami)
			tr := transport(t, open(t, clientSrc, 0), rotation.TransportOptions{HTTP1Only: !h2})
			for range 10 {
				for range 20 {
					mustGet(t, tr, r.addr)
					time.Sleep(time.Millisecond)
				}
				serverSrc.mustPush(t, ca.leaf(t, "svc", nil))
				clientSrc.mustPush(t, ca.leaf(t, "client", nil))
			}
			waitFor(t, "connections that were told to go", func() bool { return id.Status().Drained >= 3 })
			if n := id.Status().Forced; n != 0 {
				t.Errorf("%d connections were cut by force", n)
			}
			r.stop()
			if err := <-r.done; err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
}

// TestServeFinishesRequests expects that the end of ctx stops accepting, and that a
// request under way gets its answer unless it takes longer than the drain timeout.
func TestServeFinishesRequests(t *testing.T) {
	for name, c := range map[string]struct{ h2, endless bool }{
		"HTTP/1.1": {}, "HTTP/2": {h2: true}, "HTTP/1.1 endless": {endless: true}, "HTTP/2 endless": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			ca := newCA(t, "ca")
			opts := rotation.ServerOptions{Authorize: rotation.AllowNames("client"), DrainTimeout: time.Hour}
			if c.endless {
				opts.DrainTimeout = 50 * time.Millisecond
			}
			s, err := open(t, rotation.Static(ca.leaf(t, "svc", nil)), 0).Server(opts)
			if err != nil {
				t.Fatal(err)
			}
			finish := make(chan struct{})
			r := serveWith(t, s, func(w http.ResponseWriter, r *http.Request) {
				_ = http.NewResponseController(w).Flush()
				select {
				case <-finish:
				case <-r.Context().Done():
				}
				_, _ = io.WriteString(w, "the end")
			})
			resp := start(t, transport(t, open(t, rotation.Static(ca.leaf(t, "client", nil)), 0), rotation.TransportOptions{HTTP1Only: !c.h2}), r.addr, "/")
			defer func() { _ = resp.Body.Close() }()
			r.stop()
			if c.endless {
				if err := <-r.done; !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Serve with a request that was cut: %v", err)
				}
				return
			}
			close(finish)
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "the end" {
				t.Errorf("the request under way got %q, %v", body, err)
			}
			if err := <-r.done; err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
}

// TestServeEndsSlowPeers expects that a header that never ends and a body that stops
// both end, and that the handler gets an error.
func TestServeEndsSlowPeers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	t.Parallel()
	s, ca := testServer(t, rotation.ServerOptions{Authorize: rotation.AllowNames("client")})
	read := make(chan error, 1)
	r := serveWith(t, s, func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		read <- err
	})
	m := ca.leaf(t, "client", nil)
	var wg sync.WaitGroup
	for _, sent := range []string{
		"GET / HTTP/1.1\r\nHost: svc\r\nX: ",
		"POST / HTTP/1.1\r\nHost: svc\r\nContent-Length: 10\r\n\r\nfive.",
	} {
		c := rawHTTP(t, r.addr, m)
		wg.Go(func() {
			_, err := io.WriteString(c.conn, sent)
			_ = c.conn.SetReadDeadline(time.Now().Add(2 * time.Minute))
			if _, end := io.ReadAll(c.conn); err != nil || errors.Is(end, os.ErrDeadlineExceeded) {
				t.Errorf("a peer that sent %.4q: %v, %v", sent, err, end)
			}
		})
	}
	wg.Wait()
	if err := <-read; err == nil {
		t.Error("the handler got a whole body of half of one")
	}
}

// TestServeBodies expects that whole bodies arrive in both directions, whether the
// handler reads the request or not.
func TestServeBodies(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			s, ca := testServer(t, rotation.ServerOptions{Authorize: rotation.AllowNames("client")})
			r := serveWith(t, s, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/unread" {
					return
				}
				_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Hour))
				body, err := io.ReadAll(r.Body)
				if err == nil {
					_, _ = w.Write(body)
				}
			})
			tr := transport(t, open(t, rotation.Static(ca.leaf(t, "client", nil)), 0), rotation.TransportOptions{HTTP1Only: !h2})
			sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
			for _, path := range []string{"/", "/unread", "/"} {
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+r.addr+path, bytes.NewReader(sent))
				resp, err := tr.RoundTrip(req)
				if err != nil {
					t.Fatal(path, err)
				}
				got, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if path == "/" && (err != nil || !bytes.Equal(got, sent)) {
					t.Errorf("%d of %d bytes came back, %v", len(got), len(sent), err)
				}
			}
		})
	}
}

// TestServeBodyOutlivesItsHandler reads the body in another goroutine while the handler
// returns and after that, like a reverse proxy whose backend answers early. The reads
// end, and the server goes on.
func TestServeBodyOutlivesItsHandler(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			s, ca := testServer(t, rotation.ServerOptions{Authorize: rotation.AllowNames("client")})
			returning, answered, late := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			r := serveWith(t, s, func(_ http.ResponseWriter, r *http.Request) {
				defer close(returning)
				begun := make(chan struct{})
				go func() {
					_, _ = io.ReadFull(r.Body, make([]byte, 1))
					close(begun)
					_, _ = io.Copy(io.Discard, r.Body) // whether it gets all of it is net/http's affair
					<-answered
					_, err := r.Body.Read(make([]byte, 1))
					late <- err
				}()
				<-begun
			})
			body, client := io.Pipe()
			go func() {
				_, _ = client.Write([]byte("x"))
				<-returning
				_ = client.Close()
			}()
			tr := transport(t, open(t, rotation.Static(ca.leaf(t, "client", nil)), 0), rotation.TransportOptions{HTTP1Only: !h2})
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+r.addr+"/", body)
			must(t, err)
			resp, err := tr.RoundTrip(req)
			must(t, err)
			_, err = io.Copy(io.Discard, resp.Body)
			must(t, errors.Join(err, resp.Body.Close()))
			close(answered)
			if err := <-late; err == nil {
				t.Error("a body that is over was read")
			}
		})
	}
}

// TestServeRefuses calls Serve without a handler, and with a listener that fails.
func TestServeRefuses(t *testing.T) {
	s, _ := testServer(t, rotation.ServerOptions{Authorize: func(tls.ConnectionState) error { return nil }})
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context(), ln, nil); err == nil || !strings.Contains(err.Error(), "handler is missing") {
		t.Errorf("without a handler: %v", err)
	}
	if err := s.Serve(t.Context(), ln, http.NotFoundHandler()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("with a closed listener: %v", err)
	}
}
