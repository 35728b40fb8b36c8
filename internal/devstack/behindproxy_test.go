package devstack_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
	"github.com/artstore/artstore-pki/internal/devstack"
	"github.com/artstore/artstore-pki/internal/testpki"
	"github.com/artstore/artstore-pki/internal/unixsocket"
	"github.com/artstore/artstore-pki/rotation"
)

// servePlain serves a handler without TLS until the test ends.
func servePlain(t *testing.T, ln net.Listener, h http.Handler) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- httpserver.Serve(ctx, ln, httpserver.Config{Handler: h, Logger: slog.New(slog.DiscardHandler)})
	}()
	t.Cleanup(func() { stop(); check(t, <-done) })
}

// certOf is the certificate of an identity as a proxy shows it.
func certOf(id *rotation.Identity) string {
	return ":" + base64.StdEncoding.EncodeToString(id.Current().Leaf().Raw) + ":"
}

// TestBehindProxy uploads over a Unix socket as a proxy would, and expects that only a caller
// who is allowed gets in, with a token that is bound to the certificate that the proxy shows.
func TestBehindProxy(t *testing.T) {
	s := start(t, devstack.AdminConfig{BoundTokens: true}, devstack.StorageConfig{RequireBound: true})
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := unixsocket.Listen(t.Context(), unixsocket.Socket{Path: socket})
	check(t, err)
	servePlain(t, ln, devstack.BehindProxy(s.storage.Handler(), "ingester", "other"))
	id := identity(t, s.ca, "ingester")
	own, foreign := certOf(id), certOf(identity(t, s.ca, "ingester"))
	tr, err := id.Transport(rotation.TransportOptions{})
	check(t, err)
	t.Cleanup(func() { _ = tr.Close() })
	s.client = &http.Client{Transport: tr}
	token := s.token(t)
	s.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	for what, c := range map[string]struct {
		names, certs []string
		want         int
	}{
		"the caller of the token":        {[]string{"ingester"}, []string{own}, http.StatusCreated},
		"no name":                        {nil, []string{own}, http.StatusForbidden},
		"an empty name":                  {[]string{""}, []string{own}, http.StatusForbidden},
		"a name that is not allowed":     {[]string{"query-module"}, []string{own}, http.StatusForbidden},
		"two names":                      {[]string{"ingester", "ingester"}, []string{own}, http.StatusForbidden},
		"two names in one":               {[]string{"ingester, other"}, []string{own}, http.StatusForbidden},
		"no certificate":                 {[]string{"ingester"}, nil, http.StatusForbidden},
		"two certificates":               {[]string{"ingester"}, []string{own, own}, http.StatusForbidden},
		"no certificate in it":           {[]string{"ingester"}, []string{":" + base64.StdEncoding.EncodeToString([]byte("x")) + ":"}, http.StatusForbidden},
		"a certificate without colons":   {[]string{"ingester"}, []string{strings.Trim(own, ":")}, http.StatusForbidden},
		"the certificate of another one": {[]string{"ingester"}, []string{foreign}, http.StatusUnauthorized},
	} {
		body, contentType := multipartBody(t, "a", []byte("content"))
		r := s.do(t, http.MethodPost, "http://storage/api/v1/files/upload", contentType, bytes.NewReader(body), bearer(token), func(r *http.Request) {
			r.Header["X-Client-Identity"], r.Header["Client-Cert"] = c.names, c.certs
		})
		if r.status != c.want {
			t.Errorf("%s: %d %s, want %d", what, r.status, r.body, c.want)
		}
	}
	want(t, "files", len(s.storage.Files()), 1)
}

// elsewhere is a listener whose connections seem to come over an address of the network.
type elsewhere struct{ net.Listener }

func (l elsewhere) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return overNetwork{c}, err
}

type overNetwork struct{ net.Conn }

func (overNetwork) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80} }

// TestBehindProxyIsOfThisMachine expects that the headers are believed over loopback, and neither
// over another address nor where a server does not say the address.
func TestBehindProxyIsOfThisMachine(t *testing.T) {
	header := certOf(identity(t, ingesttest.NewCA(t), "ingester"))
	h := devstack.BehindProxy(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), "ingester")
	for name, c := range map[string]struct {
		wrap func(net.Listener) net.Listener
		want int
	}{
		"loopback": {func(ln net.Listener) net.Listener { return ln }, http.StatusOK},
		"network":  {func(ln net.Listener) net.Listener { return elsewhere{ln} }, http.StatusForbidden},
	} {
		ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		check(t, err)
		servePlain(t, c.wrap(ln), h)
		req := proxied(t, "http://"+ln.Addr().String(), header)
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		check(t, err)
		check(t, resp.Body.Close())
		want(t, name, resp.StatusCode, c.want)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, proxied(t, "http://storage", header))
	want(t, "no address", rec.Code, http.StatusForbidden)
}

// proxied is a request as a proxy sends it.
func proxied(t *testing.T, url, cert string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	check(t, err)
	req.Header.Set("X-Client-Identity", "ingester")
	req.Header.Set("Client-Cert", cert)
	return req
}

// FuzzClientCert checks that a header is refused, or is one certificate in the only form that it
// may have: two texts of one certificate could pass for two.
func FuzzClientCert(f *testing.F) {
	cert := testpki.Root(f, "x").Cert
	good := ":" + base64.StdEncoding.EncodeToString(cert.Raw) + ":"
	for _, seed := range []string{good, good[1:], good + good, good[:40] + "\n" + good[40:], "::", ":", "", ":AAAA:", good + ";a=1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := devstack.HeaderThumbprint(text)
		if err != nil {
			return
		}
		der, err := base64.StdEncoding.DecodeString(strings.Trim(text, ":"))
		check(t, err)
		_, err = x509.ParseCertificate(der)
		check(t, err)
		if again := ":" + base64.StdEncoding.EncodeToString(der) + ":"; again != text {
			t.Errorf("%q is taken for %q", text, again)
		}
		sum := sha256.Sum256(der)
		want(t, "thumbprint", got, base64.RawURLEncoding.EncodeToString(sum[:]))
	})
}
