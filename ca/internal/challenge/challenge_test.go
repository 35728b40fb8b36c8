package challenge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/problem"
	"github.com/artstore/artstore-pki/internal/dnstest"
)

const (
	keyAuth = "token.thumbprint"
	canary  = "CANARY-of-the-server"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func portOf(t *testing.T, addr net.Addr) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func dnsServer(t *testing.T, txt func(string) []string) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() { _ = dnstest.Serve(conn, txt) }()
	return conn.LocalAddr().String()
}

// want wants a problem of a type that names the cause and nothing of the server.
func want(t *testing.T, p *problem.Document, kind problem.Type, parts ...string) {
	t.Helper()
	if kind == "" {
		if p != nil {
			t.Errorf("%v", p)
		}
		return
	}
	if p == nil || p.Type != kind {
		t.Errorf("%v, want %s", p, kind)
		return
	}
	for _, part := range parts {
		if !strings.Contains(p.Detail, part) {
			t.Errorf("%q does not name %q", p.Detail, part)
		}
	}
	if strings.Contains(p.Detail, canary) {
		t.Errorf("%q repeats what the server sent", p.Detail)
	}
}

// http-01: the right content passes, and each other answer has its own problem.
// What a server sends is never repeated (TestNothingOfTheServer is this property).
func TestNothingOfTheServer(t *testing.T) {
	var answer http.HandlerFunc
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Canary", canary)
		answer(w, r)
	}))
	defer srv.Close()
	port := portOf(t, srv.Listener.Addr())
	v := New(Config{Resolver: dnsServer(t, func(string) []string { return nil }), HTTPPort: port, TLSPort: port, Networks: loopback})
	for _, tc := range []struct {
		name   string
		answer http.HandlerFunc
		kind   problem.Type
		parts  []string
	}{
		{"right", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/.well-known/acme-challenge/token" && r.Host == "web.example" {
				_, _ = w.Write([]byte(keyAuth + "\r\n"))
			}
		}, "", nil},
		{"wrong", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(canary)) }, problem.IncorrectResponse, []string{"status 200", "127.0.0.1:" + port}},
		{"not found", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, canary, http.StatusNotFound) }, problem.IncorrectResponse, []string{"status 404", "127.0.0.1:" + port}},
		{"redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/"+canary, http.StatusFound) }, problem.IncorrectResponse, []string{"status 302", "redirects are not followed"}},
		{"endless", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(keyAuth + strings.Repeat(" ", 1<<20) + canary))
		}, "", nil}, // white space at the end is ignored, and no more is read
		{"hangs up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, problem.Connection, []string{"127.0.0.1:" + port, "closed the connection without an answer"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			answer = tc.answer
			want(t, v.Validate(t.Context(), Challenge{HTTP01, "web.example", "token", keyAuth}), tc.kind, tc.parts...)
		})
	}
	want(t, v.Validate(t.Context(), Challenge{TLSALPN01, "web.example", "token", keyAuth}), problem.TLS, "127.0.0.1:"+port, "does not speak TLS")
	want(t, v.Validate(t.Context(), Challenge{"device-attest-01", "web.example", "token", keyAuth}), problem.Malformed)
	srv.Close()
	want(t, v.Validate(t.Context(), Challenge{HTTP01, "web.example", "token", keyAuth}), problem.Connection, "connection refused", "127.0.0.1:"+port)
	want(t, v.Validate(t.Context(), Challenge{HTTP01, "127.0.0.1", "token", keyAuth}), problem.Connection, "connection refused", "127.0.0.1:"+port)
	want(t, v.Validate(t.Context(), Challenge{TLSALPN01, "web.example", "token", keyAuth}), problem.Connection, "connection refused")
	want(t, New(Config{HTTPPort: port}).Validate(t.Context(), Challenge{HTTP01, "::1", "token", keyAuth}), problem.Connection, "loopback")
}

// dns-01: one of the records is the digest.
func TestDNS01(t *testing.T) {
	digest := sha256.Sum256([]byte(keyAuth))
	right := base64.RawURLEncoding.EncodeToString(digest[:])
	v := New(Config{Resolver: dnsServer(t, func(name string) []string {
		return map[string][]string{"_acme-challenge.web.example": {canary, right}, "_acme-challenge.other.example": {canary}}[name]
	})})
	want(t, v.Validate(t.Context(), Challenge{DNS01, "web.example", "token", keyAuth}), "")
	want(t, v.Validate(t.Context(), Challenge{DNS01, "*.web.example", "token", keyAuth}), "")
	want(t, v.Validate(t.Context(), Challenge{DNS01, "other.example", "token", keyAuth}), problem.IncorrectResponse, "none of the 1 TXT records of _acme-challenge.other.example")
	want(t, v.Validate(t.Context(), Challenge{DNS01, "third.example", "token", keyAuth}), problem.DNS, "_acme-challenge.third.example", "no such record")
	gone := New(Config{Resolver: "127.0.0.1:1", HTTPPort: "80"})
	want(t, gone.Validate(t.Context(), Challenge{DNS01, "web.example", "token", keyAuth}), problem.DNS, "DNS server")
	want(t, gone.Validate(t.Context(), Challenge{HTTP01, "web.example", "token", keyAuth}), problem.DNS, "looking up web.example")
}

// answerCert is a certificate for tls-alpn-01 with what change makes of it.
func answerCert(t testing.TB, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: canary}, NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"Web.example"}, ExtraExtensions: []pkix.Extension{{Id: acmeIdentifier, Critical: true, Value: digestOf(t, keyAuth)}},
	}
	if change != nil {
		change(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func digestOf(t testing.TB, text string) []byte {
	t.Helper()
	sum := sha256.Sum256([]byte(text))
	der, err := asn1.Marshal(sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// tls-alpn-01 (RFC 8737 §3): exactly the one name, and a critical extension.
func TestTLSALPN01(t *testing.T) {
	var cert tls.Certificate
	protocols := []string{alpnProtocol}
	var sni string
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		sni = h.ServerName
		return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: protocols}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).HandshakeContext(context.Background())
			_ = conn.Close()
		}
	}()
	port := portOf(t, ln.Addr())
	v := New(Config{Resolver: dnsServer(t, func(string) []string { return nil }), TLSPort: port, Networks: loopback})
	look := func(name string) *problem.Document {
		return v.Validate(t.Context(), Challenge{TLSALPN01, name, "token", keyAuth})
	}
	for _, tc := range []struct {
		name   string
		change func(*x509.Certificate)
		kind   problem.Type
		part   string
	}{
		{"right", nil, "", ""},
		{"two names", func(c *x509.Certificate) { c.DNSNames = []string{"web.example", "evil.example"} }, problem.IncorrectResponse, "only name"},
		{"another name", func(c *x509.Certificate) { c.DNSNames = []string{"evil.example"} }, problem.IncorrectResponse, "only name"},
		{"an address beside it", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} }, problem.IncorrectResponse, "only name"},
		{"a URI beside it", func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "a", Host: "b"}} }, problem.IncorrectResponse, "only name"},
		{"not critical", func(c *x509.Certificate) { c.ExtraExtensions[0].Critical = false }, problem.IncorrectResponse, "not critical"},
		{"another digest", func(c *x509.Certificate) { c.ExtraExtensions[0].Value = digestOf(t, "other") }, problem.IncorrectResponse, "not the digest"},
		{"noise", func(c *x509.Certificate) { c.ExtraExtensions[0].Value = []byte{4, 200} }, problem.IncorrectResponse, "not the digest"},
		{"more behind it", func(c *x509.Certificate) { c.ExtraExtensions[0].Value = append(digestOf(t, keyAuth), 0) }, problem.IncorrectResponse, "not the digest"},
		{"none", func(c *x509.Certificate) { c.ExtraExtensions = nil }, problem.IncorrectResponse, "no extension"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cert = answerCert(t, tc.change)
			parts := []string{"127.0.0.1:" + port, tc.part}
			want(t, look("web.example"), tc.kind, parts...)
		})
	}
	cert = answerCert(t, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, []net.IP{net.IPv4(127, 0, 0, 1)} })
	want(t, look("127.0.0.1"), "")
	if sni != "1.0.0.127.in-addr.arpa" {
		t.Errorf("server name %q (RFC 8738 §6)", sni)
	}
	protocols = []string{"h2"}
	want(t, look("web.example"), problem.TLS, "no application protocol")
	protocols = nil
	want(t, look("web.example"), problem.IncorrectResponse, alpnProtocol)
}

func TestServerName(t *testing.T) {
	for name, want := range map[string]string{
		"web.example": "web.example",
		"192.0.2.7":   "7.2.0.192.in-addr.arpa",
		"2001:db8::1": "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
	} {
		if got := serverName(name); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// When all turns are taken, the next one is told to come back: nothing was looked at.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := New(Config{})
		for range validationsAtOnce {
			v.slots <- struct{}{}
		}
		p := v.Validate(t.Context(), Challenge{Kind: DNS01, Name: "web.example"})
		if p == nil || p.Type != problem.RateLimited || p.RetryAfter == 0 || p.Status != http.StatusTooManyRequests {
			t.Errorf("%v", p)
		}
	})
}

// FuzzAnswers: no certificate of a stranger panics the comparison, and only one
// with the right name and digest passes.
func FuzzAnswers(f *testing.F) {
	for _, change := range []func(*x509.Certificate){nil, func(c *x509.Certificate) { c.DNSNames = nil }, func(c *x509.Certificate) { c.ExtraExtensions = nil }} {
		f.Add(answerCert(f, change).Certificate[0])
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		p := answers(alpnProtocol, []*x509.Certificate{leaf}, Challenge{TLSALPN01, "web.example", "token", keyAuth})
		if p == nil && fmt.Sprint(leaf.DNSNames) != "[Web.example]" && !strings.EqualFold(fmt.Sprint(leaf.DNSNames), "[web.example]") {
			t.Errorf("%q passes", leaf.DNSNames)
		}
	})
}
