package acmetest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/acme"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/internal/dnstest"
	"github.com/artstore/artstore-pki/internal/testpki"
)

// World is an authority with ACME, the network that it looks at, and the machine of a
// client that answers challenges there.
type World struct {
	*catest.CA
	mu      sync.Mutex
	txt     map[string][]string // DNS name → records
	files   map[string]string   // path → content, on http-01's port
	cert    *tls.Certificate    // on tls-alpn-01's port
	visited int                 // requests on http-01's port
}

// Profiles are three services with acme: true, of which two share a name, and db without it.
func Profiles() map[string]policy.Profile {
	return map[string]policy.Profile{
		"web":   {Names: []string{"web.example", "api.example", "127.0.0.1", "localhost", "192.0.2.7"}, Wildcards: []string{"*.api.example"}, ACME: true},
		"other": {Names: []string{"other.example", "shared.example"}, ACME: true, KeyTypes: []string{"EC-P384"}},
		"third": {Names: []string{"third.example", "shared.example"}, ACME: true},
		"db":    {Names: []string{"db.example"}},
	}
}

// Start runs an authority until the test ends. Options without Profiles get those of
// [Profiles]. settings are more members of the provisioner's entry in pki.yaml, such as
// ", require_eab: true".
func Start(t testing.TB, opt catest.Options, settings ...string) *World {
	t.Helper()
	w := &World{txt: make(map[string][]string), files: make(map[string]string)}
	// The servers come first: their ports go into pki.yaml, which the authority reads once.
	resolver, httpPort, tlsPort := w.listenDNS(t), w.listenHTTP(t), w.listenTLS(t)
	entry := fmt.Sprintf("  - {type: ACME, name: acme, resolver: %q, http_port: %s, tls_port: %s, networks: [127.0.0.0/8]%s}\n", resolver, httpPort, tlsPort, strings.Join(settings, ""))
	edit := opt.Edit
	if opt.Profiles == nil {
		opt.Profiles = Profiles()
	}
	// The edit of the caller comes last, so that a test can change the entry made here.
	opt.Edit = func(b []byte) []byte {
		b = []byte(strings.Replace(string(b), "\nprovisioners:\n", "\nprovisioners:\n"+entry, 1))
		if edit != nil {
			b = edit(b)
		}
		return b
	}
	w.CA = catest.Start(t, opt)
	return w
}

// listenDNS serves the TXT records of the world and returns the address of the server.
func (w *World) listenDNS(t testing.TB) string {
	t.Helper()
	dns, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = dnstest.Serve(dns, func(name string) []string {
			w.mu.Lock()
			defer w.mu.Unlock()
			return slices.Clone(w.txt[name])
		})
	}()
	t.Cleanup(func() { _ = dns.Close() })
	return dns.LocalAddr().String()
}

// listenHTTP serves the files of the world and returns the port.
func (w *World) listenHTTP(t testing.TB) (port string) {
	t.Helper()
	web := httptest.NewServer(http.HandlerFunc(w.serveChallenge))
	t.Cleanup(web.Close)
	_, port, _ = net.SplitHostPort(web.Listener.Addr().String())
	return port
}

// serveChallenge answers as the web server of a client does for http-01 (RFC 8555 §8.3).
func (w *World) serveChallenge(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.visited++
	text, ok := w.files[r.URL.Path]
	if target, found := strings.CutPrefix(text, "redirect "); found {
		http.Redirect(rw, r, target, http.StatusFound)
		return
	}
	if !ok {
		http.NotFound(rw, r)
		return
	}
	_, _ = rw.Write([]byte(text))
}

// listenTLS shows the certificate of the world to each connection, and returns the port. The
// handshake is all that tls-alpn-01 needs, so each connection is closed after it (RFC 8737 §3).
func (w *World) listenTLS(t testing.TB) (port string) {
	t.Helper()
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = inner.Close() })
	ln := tls.NewListener(inner, &tls.Config{
		NextProtos: []string{acme.ALPNProto},
		MinVersion: tls.VersionTLS12, // RFC 8737 §4
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.cert, nil
		},
	})
	ctx := context.WithoutCancel(t.Context()) // the authority may connect until it is closed
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			// The result is for the authority to judge: without a certificate it fails on both sides.
			_ = conn.(*tls.Conn).HandshakeContext(ctx)
			_ = conn.Close()
		}
	}()
	_, port, _ = net.SplitHostPort(ln.Addr().String())
	return port
}

// File returns what is served at a path on http-01's port.
func (w *World) File(path string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.files[path]
}

// SetFile serves a text at a path on http-01's port: "redirect /path" redirects there, and
// the empty text takes the file away.
func (w *World) SetFile(path, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.files[path] = text; text == "" {
		delete(w.files, path)
	}
}

// SetTXT replaces the TXT records of a DNS name. Without records the name has none.
func (w *World) SetTXT(name string, records ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.txt[name] = records
}

// Visits returns how many requests have come to http-01's port. A test that wants none shows
// that the authority asked no machine of a client.
func (w *World) Visits() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.visited
}

// Client is a client with a key and without an account.
func (w *World) Client(t testing.TB) *acme.Client {
	t.Helper()
	return &acme.Client{Key: testpki.Key(t), DirectoryURL: w.URL + "/acme/acme/directory", HTTPClient: httpClient(t, w.CA)}
}

// Account is a client with an account of its own.
func (w *World) Account(t testing.TB) *acme.Client {
	t.Helper()
	cl := w.Client(t)
	if _, err := cl.Register(t.Context(), &acme.Account{Contact: []string{"mailto:ops@web.example"}}, acme.AcceptTOS); err != nil {
		t.Fatalf("registering: %v", err)
	}
	return cl
}

// Order makes an order for names, which are DNS names or IP addresses. The error is that of
// the client: refusals are what many tests want.
func Order(t testing.TB, cl *acme.Client, names ...string) (*acme.Order, error) {
	t.Helper()
	var ids []acme.AuthzID
	for _, n := range names {
		if net.ParseIP(n) != nil {
			ids = append(ids, acme.IPIDs(n)...)
			continue
		}
		ids = append(ids, acme.DomainIDs(n)...)
	}
	return cl.AuthorizeOrder(t.Context(), ids)
}

// Answer puts the answer of one challenge where the authority looks for it.
func (w *World) Answer(t testing.TB, cl *acme.Client, name string, ch *acme.Challenge) {
	t.Helper()
	switch ch.Type {
	case "http-01":
		text, err := cl.HTTP01ChallengeResponse(ch.Token)
		if err != nil {
			t.Fatal(err)
		}
		w.SetFile(cl.HTTP01ChallengePath(ch.Token), text)
	case "dns-01":
		text, err := cl.DNS01ChallengeRecord(ch.Token)
		if err != nil {
			t.Fatal(err)
		}
		w.SetTXT("_acme-challenge."+name, "noise", text)
	case "tls-alpn-01":
		cert, err := cl.TLSALPN01ChallengeCert(ch.Token, name)
		if err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.cert = &cert
	}
}

// Prove answers a challenge of the kind for every name of an order, and waits until the
// authority believes each.
func (w *World) Prove(t testing.TB, cl *acme.Client, o *acme.Order, kind string) {
	t.Helper()
	for _, url := range o.AuthzURLs {
		az, err := cl.GetAuthorization(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(az.Challenges, func(c *acme.Challenge) bool { return c.Type == kind })
		if i < 0 {
			t.Fatalf("no %s for %s", kind, az.Identifier.Value)
		}
		w.Answer(t, cl, az.Identifier.Value, az.Challenges[i])
		if _, err := cl.Accept(t.Context(), az.Challenges[i]); err != nil {
			t.Fatal(err)
		}
		if _, err := cl.WaitAuthorization(t.Context(), url); err != nil {
			t.Fatalf("%s for %s: %v", kind, az.Identifier.Value, err)
		}
	}
}

// Proven returns a new order whose names are all proven, so that it is ready for a request
// to finalize it. It is as the server showed it before the proof: its status is pending.
func (w *World) Proven(t testing.TB, cl *acme.Client, kind string, names ...string) *acme.Order {
	t.Helper()
	o, err := Order(t, cl, names...)
	if err != nil {
		t.Fatal(err)
	}
	w.Prove(t, cl, o, kind)
	return o
}

// Obtain goes the whole way, from order to certificate, with a new key. The first name is
// the common name of the request as well.
func (w *World) Obtain(t testing.TB, cl *acme.Client, kind string, names ...string) *tls.Certificate {
	t.Helper()
	key := testpki.Key(t)
	o, err := cl.WaitOrder(t.Context(), w.Proven(t, cl, kind, names...).URI)
	if err != nil {
		t.Fatal(err)
	}
	ders, _, err := cl.CreateOrderCert(t.Context(), o.FinalizeURL, Request(t, key, names[0], names...), true)
	if err != nil {
		t.Fatalf("finalizing: %v", err)
	}
	leaf, err := x509.ParseCertificate(ders[0])
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: ders, Leaf: leaf, PrivateKey: key}
}

// RefusedWith wants an error that is a problem of ACME (RFC 8555 §6.7) of that type, without
// its prefix, and with that part in its text.
func RefusedWith(t testing.TB, err error, kind, text string) {
	t.Helper()
	if p, ok := errors.AsType[*acme.Error](err); !ok || p.ProblemType != problemPrefix+kind || !strings.Contains(p.Detail, text) {
		t.Errorf("%v, want %s with %q", err, kind, text)
	}
}
