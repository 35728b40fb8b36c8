package enroll_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/internal/testpki"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// listen starts an authority on a loopback port.
func listen(t *testing.T) (*authority, string) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := newAuthority(t, time.Hour)
	a.start(t, ln)
	return a, "https://" + ln.Addr().String()
}

// respond serves one fixed answer over TLS and returns a client of it.
func respond(t *testing.T, h http.HandlerFunc) *enroll.Client {
	t.Helper()
	srv := httptest.NewTLSServer(h)
	t.Cleanup(srv.Close)
	c, err := enroll.NewClient(srv.URL, []*x509.Certificate{srv.Certificate()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.AuthorityName = "127.0.0.1" // the certificate of httptest is no authority's
	return c
}

func TestClientAgainstAuthority(t *testing.T) {
	a, url := listen(t)
	ctx := t.Context()
	anonymous, err := enroll.NewClient(url, a.bundle(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := anonymous.Health(ctx); err != nil {
		t.Error(err)
	}
	key := testpki.Key(t)
	csr := csrFor(t, key, "svc")
	chain, err := anonymous.Sign(ctx, csr, a.token("svc"))
	if err != nil || len(chain) != 2 || !certs.Fits(chain[0], key) {
		t.Fatalf("Sign: %v", err)
	}
	mine := &tls.Certificate{Certificate: [][]byte{chain[0].Raw, chain[1].Raw}, PrivateKey: key}
	c, err := enroll.NewClient(url+"/", a.bundle(), mine)
	if err != nil {
		t.Fatal(err)
	}
	c.TrustDigest = "digest"
	if again, err := c.Renew(ctx); err != nil || again[0].Equal(chain[0]) || !certs.Fits(again[0], key) {
		t.Errorf("Renew: %v", err)
	}
	other := testpki.Key(t)
	if again, err := c.Rekey(ctx, csrFor(t, other, "svc")); err != nil || !certs.Fits(again[0], other) {
		t.Errorf("Rekey: %v", err)
	}
	if len(a.digests) != 2 || a.digests[0] != "digest" {
		t.Errorf("digests %q", a.digests)
	}
	if err := c.Revoke(ctx, chain[0].SerialNumber.String(), 4, secret.String{}); err != nil {
		t.Error(err)
	}
	var refused *enroll.Error
	if _, err := anonymous.Renew(ctx); !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized {
		t.Errorf("Renew without a certificate: %v", err)
	}
	if want := "renewing the certificate: the authority answered 401: no client certificate"; refused.Error() != want {
		t.Errorf("%q, want %q", refused, want)
	}
}

func TestRefusals(t *testing.T) {
	token := jwt(`{"sub":"svc"}`)
	for name, c := range map[string]struct {
		status int
		header map[string]string
		body   string
		want   enroll.Error
	}{
		"message":      {403, nil, `{"status":403,"message":"name not allowed"}`, enroll.Error{Status: 403, Message: "name not allowed"}},
		"no JSON":      {502, nil, `<html>`, enroll.Error{Status: 502, Message: "Bad Gateway"}},
		"no message":   {500, nil, `{}`, enroll.Error{Status: 500, Message: "Internal Server Error"}},
		"redirect":     {307, map[string]string{"Location": "https://evil.test/"}, ``, enroll.Error{Status: 307, Message: "a redirect, which is not followed"}},
		"retry":        {503, map[string]string{"Retry-After": "7"}, `{"message":"busy"}`, enroll.Error{Status: 503, Message: "busy", RetryAfter: 7 * time.Second}},
		"retry date":   {503, map[string]string{"Retry-After": "Thu, 01 Jan 2026 00:01:00 GMT", "Date": "Thu, 01 Jan 2026 00:00:00 GMT"}, `{"message":"busy"}`, enroll.Error{Status: 503, Message: "busy", RetryAfter: time.Minute}},
		"retry past":   {503, map[string]string{"Retry-After": "Thu, 01 Jan 1970 00:01:00 GMT"}, `{"message":"busy"}`, enroll.Error{Status: 503, Message: "busy"}},
		"retry absurd": {503, map[string]string{"Retry-After": "99999999999"}, `{"message":"busy"}`, enroll.Error{Status: 503, Message: "busy", RetryAfter: 24 * time.Hour}},
		"retry bad":    {503, map[string]string{"Retry-After": "-soon"}, `{"message":"busy"}`, enroll.Error{Status: 503, Message: "busy"}},
		"control":      {400, nil, `{"message":"a\nb\u001b[31m"}`, enroll.Error{Status: 400, Message: "a b [31m"}},
		"quotes it":    {401, nil, `{"message":"token ` + token.Expose() + ` is spent"}`, enroll.Error{Status: 401, Message: "token e30.[redacted].c2ln is spent"}},
	} {
		client := respond(t, func(w http.ResponseWriter, _ *http.Request) {
			for k, v := range c.header {
				w.Header().Set(k, v)
			}
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		})
		_, err := client.Sign(t.Context(), nil, token)
		var got *enroll.Error
		if !errors.As(err, &got) || got.Status != c.want.Status || got.Message != c.want.Message || got.RetryAfter != c.want.RetryAfter {
			t.Errorf("%s: %+v (%v), want %+v", name, got, err, c.want)
		}
	}
	client := respond(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"message":"`+strings.Repeat("ж", 9999)+`"}`)
	})
	if err := client.Health(t.Context()); err == nil || len([]rune(err.Error())) > 300 {
		t.Errorf("a long message: %d runes", len([]rune(err.Error())))
	}
}

func TestBadAnswers(t *testing.T) {
	leaf := string(pemfile.EncodeCertificates([]*x509.Certificate{material(t, "x").Certificate.Leaf}))
	twice, _ := json.Marshal(leaf + leaf)
	one, _ := json.Marshal(leaf)
	for body, want := range map[string]string{
		``:                                  "does not speak the step API",
		`[]`:                                "does not speak the step API",
		`{}`:                                "no PEM block",
		`{"crts":[]}`:                       "list is empty",
		`{"crts":["x"]}`:                    "parsing certificates",
		`{"crts":[` + string(twice) + `]}`:  "2 where one belongs",
		`{"crts":[` + string(one) + `]}`:    "is not a CA certificate",
		strings.Repeat(" ", 256<<10) + "{}": "longer than",
	} {
		c := respond(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
		_, err := c.Roots(t.Context())
		if body == "{}" {
			_, err = c.Sign(t.Context(), nil, secret.String{})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want …%s…", body, err, want)
		}
	}
	c := respond(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"status":"weird"}`) })
	if err := c.Health(t.Context()); err == nil || !strings.Contains(err.Error(), "weird") {
		t.Errorf("Health: %v", err)
	}
	if err := c.Revoke(t.Context(), "1", 0, secret.String{}); err == nil || !strings.Contains(err.Error(), "weird") {
		t.Errorf("Revoke: %v", err)
	}
	cut := respond(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "{")
	})
	if err := cut.Health(t.Context()); err == nil || !strings.Contains(err.Error(), "reading the answer of https://") {
		t.Errorf("a cut answer: %v", err)
	}
}

func TestClientSaysWhatAndWhere(t *testing.T) {
	a, url := listen(t)
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := "https://" + ln.Addr().String()
	_ = ln.Close()
	c, err := enroll.NewClient(gone, a.bundle(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Health(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "checking the authority: reaching the authority at "+gone+": dial tcp") {
		t.Errorf("unreachable: %v", err)
	}
	other, _ := listen(t)
	if c, err = enroll.NewClient(url, other.bundle(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Roots(t.Context()); !errors.As(err, new(x509.UnknownAuthorityError)) {
		t.Errorf("foreign roots: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Roots(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := enroll.NewClient(url, nil, nil); err == nil {
		t.Error("a client without roots was made")
	}
	if _, err := enroll.NewClient("http://ca.test", a.bundle(), nil); err == nil {
		t.Error("a client without TLS was made")
	}
	if c, err = enroll.NewClient(url+"/", a.bundle(), nil); err != nil || c.URL() != url+"/" {
		t.Errorf("URL: %v", err)
	}
	var zero enroll.Client
	zero.Close()
	if err := zero.Health(t.Context()); err == nil {
		t.Error("the zero client was not refused")
	}
}

func TestBootstrap(t *testing.T) {
	a, url := listen(t)
	a.addRoot(t)
	roots, err := enroll.Bootstrap(t.Context(), url, certs.Fingerprint(a.bundle()[0]))
	if err != nil || stepapi.TrustDigest(roots) != stepapi.TrustDigest(a.bundle()) {
		t.Errorf("%d roots, %v; want the bundle of two", len(roots), err)
	}
	fp := strings.ToUpper(certs.Fingerprint(a.bundle()[0]))
	var colons []string
	for i := 0; i < len(fp); i += 2 {
		colons = append(colons, fp[i:i+2])
	}
	if _, err := enroll.Bootstrap(t.Context(), url, strings.Join(colons, ":")); err != nil {
		t.Errorf("fingerprint with colons: %v", err)
	}

	refused := func(name, url, fingerprint, want string) {
		t.Helper()
		roots, err := enroll.Bootstrap(t.Context(), url, fingerprint)
		if err == nil || len(roots) > 0 || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want …%s…", name, err, want)
		}
	}
	wrong := strings.Repeat("00", 32)
	refused("wrong fingerprint", url, wrong, "no certificate with the fingerprint "+wrong+": served were ")
	refused("says what was served", url, wrong, certs.Fingerprint(a.bundle()[0])+" (Root 1)")
	refused("an intermediate", url, certs.Fingerprint(a.issuer.Cert), "not a self-signed CA")
	refused("a root that signs nothing yet", url, certs.Fingerprint(a.bundle()[1]), "is served, but the server's certificate is not issued under it")
	refused("not a fingerprint", url, "abc", "SHA-256 in hex")
	for _, bad := range []string{wrong, "abc"} {
		if _, err := enroll.Bootstrap(t.Context(), url, bad); !errors.Is(err, enroll.ErrFingerprint) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	refused("not a URL", "ca.test", wrong, "https://")
	refused("another name", strings.Replace(url, "127.0.0.1", "localhost", 1), certs.Fingerprint(a.bundle()[0]), "not localhost")

	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	refused("not TLS", strings.Replace(plain.URL, "http:", "https:", 1), wrong, "does not speak TLS")
	plain.Close()
	refused("unreachable", strings.Replace(plain.URL, "http:", "https:", 1), wrong, "connection refused")
	old := httptest.NewUnstartedServer(http.NotFoundHandler())
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS12} // what must be refused
	old.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	old.StartTLS()
	defer old.Close()
	refused("TLS 1.2", old.URL, wrong, "protocol version")
}

// TestBundleMustHoldAnAnchor expects that a bundle without any of the trusted roots is
// refused: with it, the next connection would fail.
func TestBundleMustHoldAnAnchor(t *testing.T) {
	a, url := listen(t)
	pinned := a.bundle()[0]
	a.addRoot(t)
	a.mu.Lock()
	a.roots = a.roots[1:]
	a.mu.Unlock()
	if _, err := enroll.Bootstrap(t.Context(), url, certs.Fingerprint(pinned)); err == nil || !strings.Contains(err.Error(), "without any of the roots") {
		t.Errorf("Bootstrap: %v", err)
	}
}

// TestEnrolmentToken expects that an answer is accepted only if it is a token for the
// requested service.
func TestEnrolmentToken(t *testing.T) {
	a, _ := listen(t)
	good := a.token("ingester").Expose()
	for answer, want := range map[string]string{
		`{"ott":"` + good + `"}`:                      "",
		`{"ott":"` + a.token("other").Expose() + `"}`: `requesting a token: the answer is a token for "other"`,
		`{"ott":"x"}`: "requesting a token: reading the token: not a JWT",
		`{}`:          "requesting a token: reading the token",
		`[]`:          "the answer is not the JSON expected",
	} {
		var asked stepapi.TokenRequest
		c := respond(t, func(w http.ResponseWriter, r *http.Request) {
			if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || r.URL.Path != "/1.0/token" || r.Method != http.MethodPost {
				t.Errorf("%s %s: %v", r.Method, r.URL, err)
			}
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, answer)
		})
		token, err := c.EnrolmentToken(t.Context(), stepapi.TokenRequest{Service: "ingester", Names: []string{"a"}, Lifetime: "1m"})
		if asked.Service != "ingester" || len(asked.Names) != 1 || asked.Lifetime != "1m" {
			t.Errorf("asked for %+v", asked)
		}
		if want == "" && (err != nil || token.Expose() != good) || want != "" && (err == nil || !strings.Contains(err.Error(), want) || !token.IsZero()) {
			t.Errorf("%.40s: %v, want %q", answer, err, want)
		}
		if err != nil && strings.Contains(err.Error(), good[:30]) {
			t.Error("the error repeats a token")
		}
	}
}

// TestRecord expects that a page of the record is requested with the certificates, and
// the next page with the cursor.
func TestRecord(t *testing.T) {
	a := newAuthority(t, time.Hour)
	root, other := string(pemfile.EncodeCertificates(a.bundle())), string(pemfile.EncodeCertificates([]*x509.Certificate{a.issuer.Cert}))
	answers := map[string]any{
		"/1.0/records/certificates?limit=200&pem=true": stepapi.RecordPage{
			Certificates: []stepapi.RecordRow{{Service: "a", PEM: strings.Repeat("x", 1<<20)}}, Next: "5.-1",
		},
		"/1.0/records/certificates?cursor=5.-1&limit=200&pem=true": stepapi.RecordPage{Certificates: []stepapi.RecordRow{{Service: "b"}}},
		"/1.0/records/authorities":                                 stepapi.RecordAuthorities{Roots: []string{root}, Others: []string{other}},
	}
	c := respond(t, func(w http.ResponseWriter, r *http.Request) {
		answer, is := answers[r.URL.String()]
		if !is {
			t.Errorf("%s was asked for", r.URL)
		}
		_ = json.NewEncoder(w).Encode(answer)
	})
	var services string
	for cursor := ""; ; {
		page, err := c.RecordPage(t.Context(), cursor)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range page.Certificates {
			services += row.Service
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if services != "ab" {
		t.Errorf("services %q", services)
	}
	roots, others, err := c.RecordAuthorities(t.Context())
	if err != nil || len(roots) != 1 || !roots[0].Equal(a.bundle()[0]) || len(others) != 1 || !others[0].Equal(a.issuer.Cert) {
		t.Errorf("%d roots, %d others, %v", len(roots), len(others), err)
	}
	for _, bad := range []stepapi.RecordAuthorities{{}, {Roots: []string{root}}, {Roots: []string{root}, Others: []string{"x"}}} {
		answers["/1.0/records/authorities"] = bad
		if _, _, err := c.RecordAuthorities(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "reading the certificates of the authority: ") {
			t.Errorf("%d roots, %d others: %v", len(bad.Roots), len(bad.Others), err)
		}
	}
}
