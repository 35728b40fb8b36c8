package enroll_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/logtest"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/internal/testpki"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

func csrFor(t *testing.T, key crypto.Signer, name string) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func once(token secret.String) func(context.Context) (secret.String, error) {
	return func(context.Context) (secret.String, error) { return token, nil }
}

func TestIssueAndRenew(t *testing.T) {
	a, url := listen(t)
	for _, kind := range []enroll.KeyType{"", "Ed25519"} {
		dir := filepath.Join(t.TempDir(), "d")
		cfg := enroll.Config{URL: url, Dir: dir, Token: once(a.token("svc", "svc", "127.0.0.1"))}
		first, err := enroll.Issue(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := readDir(t, dir); !got.Certificate.Leaf.Equal(first.Certificate.Leaf) {
			t.Error("Issue stored something else")
		}
		a.addRoot(t)
		cfg.Token, cfg.KeyType = nil, kind
		second, err := enroll.Renew(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		got := readDir(t, dir)
		if !got.Certificate.Leaf.Equal(second.Certificate.Leaf) || second.Certificate.Leaf.Equal(first.Certificate.Leaf) {
			t.Error("Renew stored something else")
		}
		if len(got.Roots) != len(a.bundle()) {
			t.Errorf("%d roots after Renew, want %d", len(got.Roots), len(a.bundle()))
		}
		if second.Version != certs.Serial(second.Certificate.Leaf) {
			t.Errorf("version %q", second.Version)
		}
	}
}

// TestIssueSparesTheToken expects that the token is not spent if the certificate could
// not be stored.
func TestIssueSparesTheToken(t *testing.T) {
	a, url := listen(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "tls.crt"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := enroll.Issue(t.Context(), enroll.Config{URL: url, Dir: dir, Token: once(a.token("svc"))})
	if !errors.Is(err, fs.ErrExist) || a.count(stepapi.PathSign) != 0 {
		t.Errorf("%v after %d requests", err, a.count(stepapi.PathSign))
	}
}

// TestIssueHasLists expects that Issue stores the revoked lists with the certificate, in one
// generation, and that it sends no token if they cannot be fetched or do not verify.
func TestIssueHasLists(t *testing.T) {
	a, url := listen(t)
	cfg := enroll.Config{URL: url, Dir: filepath.Join(t.TempDir(), "d"), Token: once(a.token("svc"))}
	failing := func(r *http.Request) *stepapi.Error {
		if strings.HasSuffix(r.URL.Path, stepapi.PathRevoked) {
			return &stepapi.Error{Status: http.StatusServiceUnavailable, Message: "not now"}
		}
		return nil
	}
	forge := func(by *testpki.Pair) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.forger = by
	}
	for want, spoil := range map[string]func(){
		"503: not now":               func() { a.setFault(failing) },
		"verifying the revoked list": func() { forge(testpki.Root(t, "Mallory")) },
	} {
		spoil()
		_, err := enroll.Issue(t.Context(), cfg)
		if err == nil || !strings.Contains(err.Error(), "the token was not sent: fetching the revoked lists: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want …%s…", err, want)
		}
		if files, _ := os.ReadDir(cfg.Dir); a.count(stepapi.PathSign) != 0 || slices.ContainsFunc(files, func(e fs.DirEntry) bool { return e.Name() != ".lock" }) {
			t.Errorf("%s: %d requests with the token, files %v", want, a.count(stepapi.PathSign), files)
		}
		a.setFault(nil)
		forge(nil)
	}
	victim, err := enroll.Issue(t.Context(), enroll.Config{URL: url, InMemory: true, Token: once(a.token("victim"))})
	if err != nil {
		t.Fatal(err)
	}
	a.revoke(victim.Certificate.Leaf)
	m, err := enroll.Issue(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(cfg.Dir, "crl.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := enroll.ParseLists(m, text); n != 1 || err != nil || !isRevoked(m, victim.Certificate.Leaf) {
		t.Errorf("%d lists in crl.pem, %v", n, err)
	}
	if generations, _ := filepath.Glob(filepath.Join(cfg.Dir, "gen-*")); len(generations) != 1 {
		t.Errorf("%d generations, want the certificate and its lists in one", len(generations))
	}
}

// TestIssueWithoutLists expects that an authority which has no lists costs no certificate, and
// that lists which stay in effect, or are out of date, are not kept silently.
func TestIssueWithoutLists(t *testing.T) {
	a, url := listen(t)
	var log logtest.Buffer
	issue := func(dir string) rotation.Material {
		t.Helper()
		m, err := enroll.Issue(t.Context(), enroll.Config{URL: url, Dir: dir, Token: once(a.token("svc")), Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	stock := func(is bool, listLife time.Duration) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.stock, a.listLife = is, listLife
	}
	had, none := t.TempDir(), t.TempDir()
	issue(had)
	stock(true, 0)
	if m := issue(none); len(m.Revoked) != 0 || log.String() != "" {
		t.Errorf("%d lists of an authority without any; log %s", len(m.Revoked), log.String())
	}
	if _, err := os.Lstat(filepath.Join(none, "crl.pem")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("crl.pem of an authority without lists: %v", err)
	}
	if m := issue(had); len(m.Revoked) != 1 || !strings.Contains(log.String(), "the authority serves no revoked lists any more") {
		t.Errorf("%d lists of before; log %s", len(m.Revoked), log.String())
	}
	stock(false, -time.Minute)
	if m := issue(none); len(m.Revoked) != 1 || !strings.Contains(log.String(), `level=WARN msg="a revoked list is out of date"`) {
		t.Errorf("%d lists that are over; log %s", len(m.Revoked), log.String())
	}
}

func TestIssueHealsLostAnswer(t *testing.T) {
	a, url := listen(t)
	cfg := enroll.Config{URL: url, Dir: t.TempDir(), Token: once(a.token("svc"))}
	a.setFault(func(r *http.Request) *stepapi.Error {
		if strings.HasSuffix(r.URL.Path, stepapi.PathSign) {
			return &stepapi.Error{}
		}
		return nil
	})
	if _, err := enroll.Issue(t.Context(), cfg); err == nil {
		t.Fatal("the lost answer arrived")
	}
	pending, _ := filepath.Glob(filepath.Join(cfg.Dir, "pending-*.key"))
	if len(pending) != 1 {
		t.Fatalf("pending keys: %v", pending)
	}
	if fi, err := os.Stat(pending[0]); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	a.setFault(nil)
	m, err := enroll.Issue(t.Context(), cfg)
	if err != nil || len(a.certificates()) != 1 || !m.Certificate.Leaf.Equal(a.certificates()[0]) {
		t.Errorf("%v, %d certificates", err, len(a.certificates()))
	}
	if left, _ := filepath.Glob(filepath.Join(cfg.Dir, "pending-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	// As long as the authority is not trusted, there is no key and nothing to heal.
	cfg.Dir, cfg.Token = t.TempDir(), once(a.token("other"))
	a.setFault(func(*http.Request) *stepapi.Error { return &stepapi.Error{Status: 503} })
	_, _ = enroll.Issue(t.Context(), cfg)
	a.setFault(nil)
	if pending, _ = filepath.Glob(filepath.Join(cfg.Dir, "pending-*")); len(pending) > 0 {
		t.Error("a key was made before trust was established")
	}
}

// TestRefusedKeys expects that a refusal of the first request leaves no key. After a
// lost answer the key stays in spite of a refusal, because only this key gets the
// certificate that was issued.
func TestRefusedKeys(t *testing.T) {
	a, url := listen(t)
	answer := func(e *stepapi.Error) {
		a.setFault(func(r *http.Request) *stepapi.Error {
			if e != nil && strings.HasSuffix(r.URL.Path, stepapi.PathSign) {
				return e
			}
			return nil
		})
	}
	for _, lost := range []bool{false, true} {
		cfg := enroll.Config{URL: url, Dir: t.TempDir(), Token: once(a.token("svc"))}
		if lost {
			answer(&stepapi.Error{}) // it signs, and the connection ends
			_, _ = enroll.Issue(t.Context(), cfg)
		}
		issued := len(a.certificates())
		answer(&stepapi.Error{Status: http.StatusForbidden, Message: "too many live certificates"})
		if _, err := enroll.Issue(t.Context(), cfg); err == nil {
			t.Fatal("not refused")
		}
		if pending, _ := filepath.Glob(filepath.Join(cfg.Dir, "pending-*")); (len(pending) == 1) != lost {
			t.Errorf("answer lost before: %v; left: %v", lost, pending)
		}
		answer(nil)
		m, err := enroll.Issue(t.Context(), cfg)
		if err != nil {
			t.Fatalf("answer lost before: %v; %v", lost, err)
		}
		if lost && (len(a.certificates()) != issued || !m.Certificate.Leaf.Equal(a.certificates()[issued-1])) {
			t.Error("it is not the certificate whose answer was lost")
		}
	}
}

func TestIssueErrors(t *testing.T) {
	a, url := listen(t)
	other, _ := listen(t)
	for want, change := range map[string]func(*enroll.Config){
		"no URL":                          func(c *enroll.Config) { c.URL = "" },
		"no enrolment token":              func(c *enroll.Config) { c.Token = nil },
		"reading the enrolment token":     func(c *enroll.Config) { c.Token = enroll.TokenFile("/nonexistent") },
		"neither roots nor a fingerprint": func(c *enroll.Config) { c.Token = once(jwt(`{"sub":"svc"}`)) },
		"neither a DNS name": func(c *enroll.Config) {
			c.Token, c.Roots = once(jwt(`{"sub":"svc","sans":["a b"]}`)), a.bundle()
		},
		"unknown token":           func(c *enroll.Config) { c.Token, c.Roots = once(jwt(`{"sub":"svc"}`)), a.bundle() },
		"unknown authority":       func(c *enroll.Config) { c.Roots = other.bundle() },
		"no certificate with the": func(c *enroll.Config) { c.RootFingerprint = certs.Fingerprint(other.bundle()[0]) },
	} {
		cfg := enroll.Config{URL: url, InMemory: true, Token: once(a.token("svc"))}
		change(&cfg)
		if cfg.Token == nil {
			cfg.InMemory, cfg.Dir = false, t.TempDir()
		}
		if _, err := enroll.Issue(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want …%s…", err, want)
		}
	}
}

func TestRenewErrors(t *testing.T) {
	t.Parallel()
	a, url := listen(t)
	for want, cfg := range map[string]enroll.Config{
		"no directory holds one": {URL: url, InMemory: true, Token: once(secret.String{})},
		"no such file":           {URL: url, Dir: t.TempDir()},
		"no URL":                 {Dir: "x"},
	} {
		if _, err := enroll.Renew(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want …%s…", err, want)
		}
	}
	// Roots that cannot be refreshed do not cost the new certificate.
	cfg := enroll.Config{URL: url, Dir: t.TempDir(), Token: once(a.token("svc")), Logger: slog.New(slog.DiscardHandler)}
	if _, err := enroll.Issue(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	a.setFault(func(r *http.Request) *stepapi.Error {
		if strings.HasSuffix(r.URL.Path, stepapi.PathRoots) {
			return &stepapi.Error{Status: 500}
		}
		return nil
	})
	if _, err := enroll.Renew(t.Context(), cfg); err != nil {
		t.Errorf("Renew without /roots: %v", err)
	}
	a.setFault(func(*http.Request) *stepapi.Error { return &stepapi.Error{Status: 403, Message: "denied"} })
	if _, err := enroll.Renew(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "403: denied") {
		t.Errorf("Renew refused: %v", err)
	}
	synctest.Test(t, func(t *testing.T) { // in the year 2000 the certificate of WriteFiles lives an hour
		dir := t.TempDir()
		if err := enroll.WriteFiles(dir, material(t, "old")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		if _, err := enroll.Renew(t.Context(), enroll.Config{URL: url, Dir: dir, DialContext: newDownNetwork().DialContext}); err == nil || !strings.Contains(err.Error(), "expired at 2000-01-01T01:00:00Z: renewing the expired certificate: reaching") {
			t.Errorf("Renew of an expired certificate: %v", err)
		}
	})
}

// TestForeignAnswersAreRefused expects that a certificate for another key, of another
// CA, or that has expired is refused.
func TestForeignAnswersAreRefused(t *testing.T) {
	a, url := listen(t)
	cases := []struct {
		want  string
		spoil func()
	}{
		{"another key", func() { a.spoilKey = true }},
		{"unknown authority", func() { a.spoilKey, a.spoilIssuer = false, testpki.Root(t, "Rogue") }},
		{"is over since", func() { a.spoilIssuer, a.life = nil, -time.Hour }},
	}
	for _, c := range cases {
		token := a.token("svc")
		a.mu.Lock()
		c.spoil()
		a.mu.Unlock()
		dir := filepath.Join(t.TempDir(), "d")
		_, err := enroll.Issue(t.Context(), enroll.Config{URL: url, Dir: dir, Token: once(token)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want …%s…", err, c.want)
		}
		if _, err := os.Stat(filepath.Join(dir, "tls.crt")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: it was stored", c.want)
		}
	}
}

func TestTokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	get := enroll.TokenFile(path)
	if _, err := get(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	for _, content := range []string{"one", "two\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := get(t.Context()); err != nil || got.Expose() != strings.TrimSpace(content) {
			t.Errorf("%q: %v", content, err)
		}
	}
}
