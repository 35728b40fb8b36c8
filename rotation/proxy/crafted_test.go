package proxy_test

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/proxy"
)

var overHTTP1 = rotation.TransportOptions{HTTP1Only: true}

// TestTargetIsNotRewritten expects that a target reaches the service as it was sent, or not at
// all. A path with a character that it must not have (RFC 3986 §3.3) would be written anew, with
// its escaped slashes as slashes: a peer could so say one path to what logs or filters in front
// of the proxy, and another one to the service.
func TestTargetIsNotRewritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	service := &recorder{}
	_, server := w.server(tcpService(t, service.handle), http1)
	for target, want := range map[string]int{
		"/public%2F..%2Fadmin": 200, "/a%2fb/%41": 200, "//admin/x": 200, "/..;/admin": 200, "/./../admin": 200, "/a?": 200, "/a?b|c=%zz;d#e": 200, "/[a]:@!$&'()*+,;=~": 200,
		"https://svc": 200, "https://svc/a%2Fb?c": 200,
		"/public%2F..%2Fadmin|": 400, `/public%2F..%2Fadmin"`: 400, "/public%2F..%2Fadmin{}": 400, `/..\admin`: 400, "/a%2Fb#c": 400, "https://svc/a%2Fb|": 400, "/<": 400, "/^`": 400,
	} {
		if status := w.raw(server.addr, "GET "+target+" HTTP/1.1\r\nHost: svc\r\n\r\n"); status != want {
			t.Errorf("%s: status %d, want %d", target, status, want)
		}
		seen, _, _ := strings.Cut(service.take(), " HTTP/1.1\r\n")
		path := strings.TrimPrefix(target, "https://svc")
		if path == "" {
			path = "/"
		}
		if want == 200 && seen != "GET "+path || want != 200 && seen != "" {
			t.Errorf("%s: the service sees %q", target, seen)
		}
	}
}

// TestForeignIdentityHeaders expects that no header passes by which other proxies name the peer,
// or which a service of CGI takes for its own environment. The default name never passes,
// also where the identity has another one.
func TestForeignIdentityHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	at := httpService(t, http.HandlerFunc(show))
	for name, edit := range map[string]func(*proxy.ServerConfig){"default": http1, "X-User": func(c *proxy.ServerConfig) { c.Protocol, c.IdentityHeader = proxy.HTTP, "X-User" }} {
		_, server := w.server(at, edit)
		for _, header := range []string{
			"X-Client-Identity", "X_Client_Identity", "Remote-User", "Remote_User", "X-Remote-User", "X-Remote-Group", "X-Webauth-User", "X-Arr-Clientcert", "X-Amzn-Mtls-Clientcert-Leaf", "X-Client-Dn", "X-Client-Verify", "Proxy", "PROXY",
		} {
			req := request(t, http.MethodGet, "https://"+server.addr+"/", "")
			req.Header[header] = []string{"admin"}
			if _, body := do(t, w.over(server.addr, overHTTP1), req); strings.Contains(body, "admin") {
				t.Errorf("%s, %s: the service sees\n%s", name, header, body)
			}
		}
	}
}

// TestSmugglingHTTP2 sends requests over HTTP/2 whose length differs from what they say, and
// such that say their length as HTTP/1.1 does. What follows must not become a request: the
// service gets one with one length, or none.
func TestSmugglingHTTP2(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	service := &recorder{}
	_, server := w.server(tcpService(t, service.handle), http1)
	const hidden = "GET /hidden HTTP/1.1\r\nHost: svc\r\nX-Client-Identity: admin\r\n\r\n"
	for _, c := range []struct{ name, value, body string }{
		{"content-length", "0", hidden}, {"content-length", "5", "hello" + hidden}, {"content-length", "500", "hello" + hidden}, {"content-length", "+5", "hello" + hidden},
		{"content-length", "5, 5", "hello" + hidden}, {"content_length", "5", "hello" + hidden},
		{"transfer-encoding", "chunked", "0\r\n\r\n" + hidden}, {"transfer_encoding", "chunked", "0\r\n\r\n" + hidden},
		{"connection", "transfer-encoding", "0\r\n\r\n" + hidden}, {"upgrade", "websocket", hidden}, {"expect", "100-continue", "0\r\n\r\n" + hidden},
	} {
		conn := w.dial(server.addr, "h2")
		w.sendHTTP2Body(conn, c.body, hpack.HeaderField{Name: ":method", Value: "POST"}, hpack.HeaderField{Name: ":scheme", Value: "https"}, hpack.HeaderField{Name: ":authority", Value: "svc"},
			hpack.HeaderField{Name: ":path", Value: "/x"}, hpack.HeaderField{Name: c.name, Value: c.value})
		_ = conn.Close()
	}
	// A service may get a request after its peer was told that it failed, so all are looked at together.
	if resp, err := w.over(server.addr, overHTTP1).Get("https://svc/last"); err != nil {
		t.Error(err)
	} else {
		_ = resp.Body.Close()
	}
	seen, paths := service.both()
	for _, path := range paths {
		if path != "/x" && path != "/last" {
			t.Errorf("the service has read a request for %s", path)
		}
	}
	for head := range strings.SplitSeq(strings.ToLower(seen), "post /x http/1.1\r\n") {
		head, _, _ = strings.Cut(head, "\r\n\r\n")
		if strings.Count(head, "\r\ncontent-length:")+strings.Count(head, "\r\ntransfer-encoding:") > 1 {
			t.Errorf("more than one length:\n%s", head)
		}
	}
	if !slices.Contains(paths, "/last") {
		t.Errorf("of the last request nothing was read: %q", paths)
	}
}

// sendHTTP2Body sends a request with these fields and a body, and waits for what is said of it.
func (w *world) sendHTTP2Body(c io.ReadWriter, body string, fs ...hpack.HeaderField) {
	w.t.Helper()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range fs {
		must(w.t, enc.WriteField(f))
	}
	_, err := io.WriteString(c, http2.ClientPreface)
	must(w.t, err)
	fr := http2.NewFramer(c, c)
	must(w.t, fr.WriteSettings())
	must(w.t, fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}))
	must(w.t, fr.WriteData(1, true, []byte(body)))
	w.awaitHTTP2(fr, fs)
}

// TestPeerOfManyNames expects that a service is told one name of a certificate with many, the
// first of the allow list, and none that is not on it.
func TestPeerOfManyNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.clientSrc.Push(t, w.ca.Leaf(t, "admin", func(c *x509.Certificate) {
		c.DNSNames = []string{"admin", "second", "*.example", clientName, "x, admin", strings.ToUpper(clientName)}
	}))
	at := httpService(t, http.HandlerFunc(show))
	for _, c := range []struct {
		allow []string
		want  string
	}{{[]string{clientName, "second"}, clientName}, {[]string{"second", clientName}, "second"}} {
		_, server := w.server(at, http1, func(s *proxy.ServerConfig) { s.Allow = c.allow })
		_, body := do(t, w.over(server.addr, overHTTP1), request(t, http.MethodGet, "https://"+server.addr+"/", ""))
		if !strings.Contains(body, "X-Client-Identity: "+c.want+"\r\n") || strings.Count(body, "X-Client-Identity") != 1 {
			t.Errorf("%v: the service sees\n%s", c.allow, body)
		}
	}
	_, server := w.server(at, http1, func(s *proxy.ServerConfig) { s.Allow = []string{"a.example", "adminx", "x"} })
	if _, err := w.over(server.addr, overHTTP1).Get("https://" + server.addr + "/"); err == nil {
		t.Error("a certificate with a wildcard was admitted as a name below it")
	}
}

// TestPeerSpeaksPROXY expects that a PROXY header of a peer is nothing but bytes of it: before TLS
// it ends the connection, and in TLS it follows the header of the proxy.
func TestPeerSpeaksPROXY(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	type seen struct {
		header *proxyproto.Header
		rest   string
	}
	all := make(chan seen, 2)
	_, server := w.server(tcpService(t, func(c *net.TCPConn) {
		in := bufio.NewReader(c)
		h, err := proxyproto.Read(in)
		if err != nil {
			t.Errorf("reading the header: %v", err)
		}
		rest, _ := io.ReadAll(in)
		all <- seen{h, string(rest)}
	}), func(c *proxy.ServerConfig) { c.ProxyHeader = true })
	v2, err := (&proxyproto.Header{Version: 2, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}).Format()
	must(t, err)
	for _, made := range []string{"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", string(v2)} {
		raw := dial(t, "tcp", server.addr)
		must(t, raw.SetDeadline(time.Now().Add(patience)))
		_, err := io.WriteString(raw, made)
		must(t, err)
		if _, err := io.ReadAll(raw); isTimeout(err) {
			t.Errorf("%q before TLS: the connection stays open", made)
		}
		c := w.dial(server.addr)
		_, err = io.WriteString(c, made)
		must(t, err)
		must(t, c.CloseWrite())
		got := <-all
		if got.rest != made || got.header == nil || got.header.Command != proxyproto.PROXY || got.header.SourceAddr.String() != c.LocalAddr().String() {
			t.Errorf("%q in TLS: the service sees %q after %+v", made, got.rest, got.header)
		}
	}
	if n := len(all); n != 0 {
		t.Errorf("%d connections more than peers with TLS", n)
	}
}
