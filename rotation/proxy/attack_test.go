package proxy_test

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/artstore/artstore-pki/internal/testpki"
	"github.com/artstore/artstore-pki/rotation"
)

// recorder is a service that keeps the bytes of each connection, and answers each request
// that its own simple reading finds.
type recorder struct {
	mu    sync.Mutex
	seen  bytes.Buffer
	paths []string // of the requests that it has found
}

func (r *recorder) handle(c *net.TCPConn) {
	in := bufio.NewReader(io.TeeReader(c, r))
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		r.mu.Lock()
		r.paths = append(r.paths, req.URL.Path)
		r.mu.Unlock()
		_, _ = io.Copy(io.Discard, req.Body)
		answer := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
		if req.Header.Get("Upgrade") != "" { // it would speak anything
			answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + req.Header.Get("Upgrade") + "\r\n\r\n"
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen.Write(p)
}

// take returns what has come since the last call.
func (r *recorder) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.seen.Reset()
	return r.seen.String()
}

// both returns what has come since take was called, and the paths of all requests.
func (r *recorder) both() (seen string, paths []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen.String(), slices.Clone(r.paths)
}

// raw sends bytes as they are over a connection of mutual TLS and returns the status of the
// answer, 0 if there is none.
func (w *world) raw(addr, sent string) int {
	w.t.Helper()
	c := w.dial(addr, "http/1.1")
	_, err := io.WriteString(c, sent)
	must(w.t, err)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		if isTimeout(err) {
			w.t.Errorf("no answer to %q", sent)
		}
		return 0
	}
	_ = resp.Body.Close()
	_ = c.Close()
	return resp.StatusCode
}

// wantOwnIdentity looks at what a service was sent, with every character that any server
// takes for the end of a line: each request has one identity, and it is that of the
// certificate.
func wantOwnIdentity(t *testing.T, what, seen string) {
	t.Helper()
	identities := 0
	for line := range strings.FieldsFuncSeq(seen, func(r rune) bool { return r == '\r' || r == '\n' || r == 0 }) {
		name, value, isHeader := strings.Cut(line, ":")
		if !isHeader {
			continue
		}
		plain := strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
				return r
			}
			return '-'
		}, strings.ToLower(strings.TrimSpace(name)))
		if plain == "x-client-identity" {
			identities++
			if strings.TrimSpace(value) != clientName {
				t.Errorf("%s: the service sees %q", what, line)
			}
		}
		if strings.Contains(value, "admin") && !strings.HasPrefix(plain, "x-other") {
			t.Errorf("%s: the service sees %q", what, line)
		}
	}
	if requests := strings.Count(seen, " HTTP/1.1\r\n"); requests != identities {
		t.Errorf("%s: %d requests with %d identities:\n%s", what, requests, identities, seen)
	}
}

// TestForgedIdentity sends headers that a service could take for those of the proxy, or that
// could remove these, over HTTP/1.1.
func TestForgedIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	service := &recorder{}
	_, server := w.server(tcpService(t, service.handle), http1)
	for _, lines := range []string{
		"X-Client-Identity: admin", "x-client-identity: admin", "X-CLIENT-IDENTITY:admin",
		"X_Client_Identity: admin", "X-Client_Identity: admin", "x_client-identity: admin",
		"X.Client.Identity: admin", "X~Client!Identity: admin", "X-Client-Identity: admin\r\nX-Client-Identity: admin",
		"Client-Cert: :admin:", "Client_Cert: :admin:", "Client-Cert-Chain: :admin:", "X-Forwarded-Client-Cert: Subject=admin", "X_Forwarded_For: admin",
		"X-SSL-Client-CN: admin", "SSL_CLIENT_S_DN_CN: admin", "Ssl-Client-Verify: admin", "X-Client-Cert: admin", "Forwarded: for=admin", "X-Real-IP: admin", "X-Original-URL: /admin",
		"Connection: X-Client-Identity", "Connection: close, x-client-identity, client-cert", "Connection: keep-alive, X_Client_Identity\r\nX-Client-Identity: admin",
		"Proxy-Connection: X-Client-Identity", "Keep-Alive: admin", "TE: X-Client-Identity", "Te: trailers, X-Client-Identity",
		"Trailer: X-Client-Identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Client-Identity: admin",
		"Transfer-Encoding: chunked\r\n\r\n1;X-Client-Identity: admin\r\nx\r\n0\r\nX-Client-Identity: admin",
		"X-Other: a\r\n X-Client-Identity: admin", "X-Other: a\r\n\tX-Client-Identity: admin", "X-Client-Identity : admin", " X-Client-Identity: admin",
		"X-Other: a\nX-Client-Identity: admin", "X-Other: a\rX-Client-Identity: admin", "X-Other: a\x00X-Client-Identity: admin", "X-Other: a\x0bX-Client-Identity: admin",
		"X-Other: \r\nX-Client-Identity: admin", ":X-Client-Identity: admin", "X-Client-Identity\r\n: admin",
	} {
		status := w.raw(server.addr, "GET /x HTTP/1.1\r\nHost: svc\r\n"+lines+"\r\n\r\n")
		seen := service.take()
		wantOwnIdentity(t, lines, seen)
		if status != http.StatusOK && seen != "" || status == http.StatusOK && seen == "" {
			t.Errorf("%q: status %d, and the service has seen %q", lines, status, seen)
		}
	}
	// The same with HTTP/1.0, and with a target that has the whole address.
	for _, head := range []string{"GET /x HTTP/1.0\r\n", "GET https://admin.example/x HTTP/1.1\r\nHost: svc\r\n"} {
		w.raw(server.addr, head+"X-Client-Identity: x\r\n\r\n")
		if seen := service.take(); strings.Count(seen, "X-Client-Identity: "+clientName) != 1 {
			t.Errorf("%q: %s", head, seen)
		}
	}
}

// TestSmuggling sends requests whose end two servers could see at different places. The service
// gets whole requests with one end, each with an identity, or none.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	service := &recorder{}
	_, server := w.server(tcpService(t, service.handle), http1)
	const hidden = "GET /hidden HTTP/1.1\r\nHost: svc\r\nX-Client-Identity: admin\r\n\r\n"
	chunked := "5\r\nhello\r\n0\r\n\r\n" + hidden
	for _, c := range []struct{ lines, body string }{
		{"Content-Length: 15\r\nTransfer-Encoding: chunked", chunked},
		{"Transfer-Encoding: chunked\r\nContent-Length: 15", chunked},
		{"Content-Length: 5\r\nContent-Length: 20", "hello" + hidden},
		{"Content-Length: 5, 20", "hello" + hidden},
		{"Content-Length: +5", "hello" + hidden},
		{"Content-Length: 0x5", "hello" + hidden},
		{"Content-Length: 5 ", "hello" + hidden},
		{"Content-Length : 5", "hello" + hidden},
		{"Content_Length: 5\r\nContent-Length: 0", "hello" + hidden},
		{"Transfer-Encoding: xchunked", chunked},
		{"Transfer-Encoding : chunked\r\nContent-Length: 5", "hello" + hidden},
		{"Transfer-Encoding: chunked, identity", chunked},
		{"Transfer-Encoding: identity, chunked", chunked},
		{"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", chunked},
		{"Transfer-Encoding:\x0bchunked\r\nContent-Length: 5", "hello" + hidden},
		{"Transfer_Encoding: chunked\r\nContent-Length: 5", "hello" + hidden},
		{"X-Other: a\nTransfer-Encoding: chunked\r\nContent-Length: 5", chunked},
		{"Transfer-Encoding: chunked", "5\nhello\n0\n\n" + hidden},
		{"Transfer-Encoding: chunked", "0x5\r\nhello\r\n0\r\n\r\n" + hidden},
		{"Transfer-Encoding: chunked", "5 ;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n" + hidden},
		{"Transfer-Encoding: chunked", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n" + hidden},
		{"Expect: 100-continue\r\nContent-Length: 5", "hello" + hidden},
		{"Connection: Content-Length\r\nContent-Length: 5", "hello" + hidden},
		{"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked", chunked},
	} {
		what := fmt.Sprintf("%q %q", c.lines, c.body[:9])
		w.raw(server.addr, "POST /x HTTP/1.1\r\nHost: svc\r\n"+c.lines+"\r\n\r\n"+c.body)
		time.Sleep(time.Millisecond) // the hidden request, if it was passed on as one
		seen := service.take()
		wantOwnIdentity(t, what, seen)
		for head := range strings.SplitSeq(seen, "HTTP/1.1\r\n") {
			head, _, _ = strings.Cut(head, "\r\n\r\n")
			head = strings.ToLower(head)
			if strings.Count(head, "\r\ncontent-length")+strings.Count(head, "\r\ntransfer-encoding") > 1 {
				t.Errorf("%s: more than one end:\n%s", what, seen)
			}
		}
	}
}

// TestNoWayPast expects that nothing makes a tunnel to the service but a WebSocket: after it,
// a peer could send headers of its own.
func TestNoWayPast(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	service := &recorder{}
	_, server := w.server(tcpService(t, service.handle), http1)
	for head, want := range map[string]int{
		"GET /x HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA": 200,
		"GET /x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c":                                                  200,
		"GET /x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c":                                       200,
		"GET /x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket":                                       200,
		"GET /x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0":                                                         200,
		"GET /x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: WebSocket":                                                       101,
		"GET /x HTTP/1.1\r\nUpgrade: h2c":                                                                                    200,
		"CONNECT admin:80 HTTP/1.1":                                                                                          405,
		"TRACE /x HTTP/1.1":                                                                                                  405,
		"GET /x y HTTP/1.1":                                                                                                  400,
		"GET /\x7f HTTP/1.1":                                                                                                 400,
		"GET /\u00e4 HTTP/1.1":                                                                                               400,
		"PRI * HTTP/2.0":                                                                                                     400,
		"GET * HTTP/1.1":                                                                                                     400,
		"GET foo:bar HTTP/1.1":                                                                                               400,
		"GET mailto:admin HTTP/1.1":                                                                                          400,
		"GET x HTTP/1.1":                                                                                                     400,
		"OPTIONS * HTTP/1.1":                                                                                                 200,
		"GET /x HTTP/1.1\r\nHost: a b":                                                                                       400,
		"GET /x HTTP/1.1\r\nHost: a\r\nHost: admin":                                                                          400,
	} {
		sent := head + "\r\n\r\n"
		if !strings.Contains(head, "Host:") {
			sent = head + "\r\nHost: svc\r\n\r\n"
		}
		status := w.raw(server.addr, sent)
		if status != want {
			t.Errorf("%q: status %d, want %d", head, status, want)
		}
		seen := service.take()
		wantOwnIdentity(t, head, seen)
		if want != 101 && strings.Contains(strings.ToLower(seen), "upgrade") {
			t.Errorf("%q: the service sees an upgrade:\n%s", head, seen)
		}
	}
	// A service that leaves HTTP without being asked to.
	s, server := w.server(tcpService(t, func(c *net.TCPConn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
	}), http1)
	if status := w.raw(server.addr, "GET /x HTTP/1.1\r\nHost: svc\r\n\r\n"); status != http.StatusBadGateway {
		t.Errorf("an upgrade that nobody asked for: status %d", status)
	}
	await(t, "the failure to count", func() bool { return failures(s.Stats(), "broken") == 1 })
}

// TestForgedIdentityHTTP2 sends frames of HTTP/2 with fields that become something else in
// HTTP/1.1.
func TestForgedIdentityHTTP2(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	service := &recorder{}
	_, server := w.server(tcpService(t, service.handle), http1)
	type fields = []hpack.HeaderField
	base := fields{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "svc"}, {Name: ":path", Value: "/x"}}
	with := func(name, value string) fields {
		return append(slices.Clone(base), hpack.HeaderField{Name: name, Value: value})
	}
	instead := func(name, value string) fields {
		out := slices.Clone(base)
		for i := range out {
			if out[i].Name == name {
				out[i].Value = value
			}
		}
		return out
	}
	for _, fs := range []fields{
		with("x-client-identity", "admin"), with("x_client_identity", "admin"), with("X-Client-Identity", "admin"), with("client-cert", "admin"),
		with("connection", "x-client-identity"), with("x-other", "a\r\nX-Client-Identity: admin"), with("x-other: a\r\nx-client-identity", "admin"),
		with("transfer-encoding", "chunked"), with("content-length", "5"), with("te", "x-client-identity"), with("upgrade", "h2c"), with("x-other", "a\nb: admin"),
		with(":method", "admin"), with(":protocol", "websocket"), with("host", "admin"), with("cookie", "a\r\nX-Client-Identity: admin"),
		instead(":path", "/x HTTP/1.1\r\nX-Client-Identity: admin"), instead(":path", "/x HTTP/1.1"), instead(":path", "/x?a b"), instead(":path", "x"), instead(":path", ""),
		instead(":method", "GET /admin HTTP/1.1\r\nX-Client-Identity: admin\r\n\r\nGET"), instead(":method", "CONNECT"), instead(":method", "G ET"),
		instead(":authority", "svc\r\nX-Client-Identity: admin"), instead(":authority", "svc admin"), instead(":authority", "user:pw@svc"), instead(":scheme", "http"),
	} {
		c := w.dial(server.addr, "h2")
		w.sendHTTP2(c, fs)
		wantOwnIdentity(t, fmt.Sprint(fs), service.take())
	}
}

// sendHTTP2 sends a request with exactly these fields, and waits for what is said of it.
func (w *world) sendHTTP2(c io.ReadWriter, fs []hpack.HeaderField) {
	w.t.Helper()
	_, err := io.WriteString(c, http2.ClientPreface)
	must(w.t, err)
	fr := http2.NewFramer(c, c)
	must(w.t, fr.WriteSettings())
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range fs {
		must(w.t, enc.WriteField(f))
	}
	must(w.t, fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true}))
	w.awaitHTTP2(fr, fs)
}

// awaitHTTP2 reads until the answer to the first request has ended, or the connection has.
func (w *world) awaitHTTP2(fr *http2.Framer, fs []hpack.HeaderField) {
	w.t.Helper()
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			if isTimeout(err) {
				w.t.Errorf("%v: no answer", fs)
			}
			return // the server has closed it
		}
		if f.Header().StreamID == 1 && (f.Header().Type == http2.FrameRSTStream || f.Header().Flags.Has(http2.FlagDataEndStream)) || f.Header().Type == http2.FrameGoAway {
			return
		}
	}
}

// TestDeniedPeerIsCut expects that a revoked peer loses its connections at once, in TCP, in a
// WebSocket and in a request, and that the service sees their end.
func TestDeniedPeerIsCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ended := make(chan struct{}, 8)
	_, tcp := w.server(tcpService(t, func(c *net.TCPConn) { echo(c); ended <- struct{}{} }))
	_, web := w.server(httpService(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		defer func() { ended <- struct{}{} }()
		if r.Header.Get("Upgrade") != "" {
			webSocketService().ServeHTTP(rw, r)
			return
		}
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	})), http1)
	plain := w.dial(tcp.addr)
	_, err := io.WriteString(plain, "x")
	must(t, err)
	_, err = io.ReadFull(plain, make([]byte, 1))
	must(t, err)
	conn := w.dial(web.addr, "http/1.1")
	ws := webSocket(t, conn, "svc")
	say(t, ws, "hello")
	resp, err := w.over(web.addr, rotation.TransportOptions{}).Get("https://svc/")
	must(t, err)
	defer func() { _ = resp.Body.Close() }()

	revoked := w.clientID.Current().Leaf()
	m := w.ca.Leaf(t, serverName)
	m.Revoked = []*x509.RevocationList{(&testpki.Pair{Cert: w.ca.Root, Key: w.ca.Key}).List(t, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: revoked.SerialNumber, RevocationTime: time.Now()}},
	})}
	w.serverSrc.Push(t, m)
	for what, r := range map[string]io.Reader{"TCP": plain, "WebSocket": conn, "request": resp.Body} {
		if _, err := io.ReadAll(r); isTimeout(err) {
			t.Errorf("%s goes on after the revocation", what)
		}
	}
	for range 3 {
		select {
		case <-ended:
		case <-time.After(patience):
			t.Fatal("the service does not see the end")
		}
	}
	wantAborted(t, w.dial(tcp.addr))
}
