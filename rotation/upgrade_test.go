package rotation_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"testing"

	"github.com/artstore/artstore-pki/rotation"
)

// upgradeOrAnswer leaves HTTP when it is asked to, and returns each line after the serial of the client.
func upgradeOrAnswer(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		whoami(w, r)
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer func() { _ = c.Close() }()
	_, _ = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
	for {
		line, err := rw.ReadString('\n')
		if err != nil {
			return
		}
		_, _ = fmt.Fprintf(c, "%s %s", r.TLS.PeerCertificates[0].SerialNumber, line)
	}
}

// TestUpgrade expects that requests with Upgrade work over a transport that offers
// HTTP/2, behind a reverse proxy, before and after other requests, and over rotations.
// Other requests use HTTP/2.
func TestUpgrade(t *testing.T) {
	for _, protocol := range []string{"websocket", "tcp"} {
		for name, plainFirst := range map[string]bool{"upgrade first": false, "after a plain request": true} {
			t.Run(protocol+" "+name, func(t *testing.T) {
				ca := newCA(t, "ca")
				id := open(t, rotation.Static(ca.leaf(t, "svc", nil)), 0)
				addr := listenServer(t, id, rotation.ServerOptions{Authorize: rotation.AllowNames("client")}, upgradeOrAnswer)
				src := newPushed(ca.leaf(t, "client", nil))
				client := open(t, src, 0)
				tr := transport(t, client, rotation.TransportOptions{})
				proxy := &httputil.ReverseProxy{Transport: tr, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(mustURL(t, "https://"+addr)) }}
				front := httptest.NewServer(proxy)
				defer front.Close()
				if plainFirst {
					mustGet(t, tr, addr)
				}
				var open []io.Closer
				for range 3 {
					c, line := upgrade(t, front.Listener.Addr().String(), protocol)
					open = append(open, c)
					if want := serial(client) + " hello\n"; line != want {
						t.Errorf("%q, want %q", line, want)
					}
					if h := mustGet(t, tr, addr); h.Get("Proto") != "HTTP/2.0" || h.Get("Serial") != serial(client) {
						t.Errorf("beside it: %v", h)
					}
					src.mustPush(t, ca.leaf(t, "client", nil))
				}
				for _, c := range open {
					must(t, c.Close())
				}
				tr.CloseIdleConnections()
				waitFor(t, "the connections to end", func() bool { return rotation.Conns(tr) == 0 })
			})
		}
	}
}

// upgrade leaves HTTP for a protocol and exchanges a line in it.
func upgrade(t *testing.T, addr, protocol string) (io.Closer, string) {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	must(t, err)
	_, err = fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol)
	must(t, err)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	must(t, err)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("answer %s: %s", resp.Status, body)
	}
	_, err = io.WriteString(c, "hello\n")
	must(t, err)
	line, err := r.ReadString('\n')
	must(t, err)
	return c, line
}
