package enroll_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/internal/testpki"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// impostor is a server with a valid certificate under the authority's root for the host
// of its URL. It answers as an authority would, adds a root of its own to the bundle,
// and counts its requests.
type impostor struct {
	URL      string
	requests atomic.Int32
}

func newImpostor(t *testing.T, cert tls.Certificate, roots []*x509.Certificate) *impostor {
	t.Helper()
	for _, r := range roots {
		cert.Certificate = append(cert.Certificate[:len(cert.Certificate):len(cert.Certificate)], r.Raw)
	}
	i := &impostor{}
	bundle := stepapi.RootsResponse{Certificates: []string{
		string(pemfile.EncodeCertificates(roots[:1])), string(pemfile.EncodeCertificates([]*x509.Certificate{testpki.Root(t, "Foreign").Cert})),
	}}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.requests.Add(1)
		if strings.HasSuffix(r.URL.Path, stepapi.PathRoots) {
			answer(w, http.StatusCreated, bundle)
			return
		}
		answer(w, http.StatusServiceUnavailable, stepapi.Error{Status: http.StatusServiceUnavailable, Message: "thank you"})
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	i.URL = srv.URL
	return i
}

// refused expects that each function of enroll finds out that i is not the authority
// before anything is sent to it. dir has an identity and its lists.
func (i *impostor) refused(t *testing.T, authority *catest.CA, dir string) {
	t.Helper()
	ctx, held := t.Context(), readDir(t, dir)
	token := func() func(context.Context) (secret.String, error) { return once(authority.Token(t, "admin-module")) }
	issue := func(cfg enroll.Config) error {
		cfg.URL, cfg.Token = i.URL, token()
		if cfg.Dir == "" {
			cfg.InMemory = true
		}
		_, err := enroll.Issue(ctx, cfg)
		return err
	}
	c, err := enroll.NewClient(i.URL, held.Roots, &held.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	csr := csrFor(t, testpki.Key(t), "admin-module")
	for name, use := range map[string]func() error{
		"bootstrap":             func() error { _, err := enroll.Bootstrap(ctx, i.URL, authority.RootFingerprint); return err },
		"issue by the token":    func() error { return issue(enroll.Config{}) },
		"issue by fingerprint":  func() error { return issue(enroll.Config{RootFingerprint: authority.RootFingerprint}) },
		"issue by roots":        func() error { return issue(enroll.Config{Roots: authority.Roots()}) },
		"issue over an old one": func() error { return issue(enroll.Config{Dir: dir}) },
		"renew":                 func() error { _, err := enroll.Renew(ctx, enroll.Config{URL: i.URL, Dir: dir}); return err },
		"Client.Health":         func() error { return c.Health(ctx) },
		"Client.Roots":          func() error { _, err := c.Roots(ctx); return err },
		"Client.Sign":           func() error { _, err := c.Sign(ctx, csr, authority.Token(t, "admin-module")); return err },
		"Client.Rekey":          func() error { _, err := c.Rekey(ctx, csr); return err },
		"Client.Renew":          func() error { _, err := c.Renew(ctx); return err },
		"Client.Revoke":         func() error { return c.Revoke(ctx, "1", 0, authority.RevokeToken(t, "1")) },
	} {
		err := use()
		if !errors.Is(err, enroll.ErrNotAuthority) || i.requests.Load() != 0 {
			t.Errorf("%s: %v, after %d requests", name, err, i.requests.Load())
		}
	}
}

// TestServiceIsNotTheAuthority expects that a service that has a name of the authority,
// such as localhost, gets no token of another service.
func TestServiceIsNotTheAuthority(t *testing.T) {
	t.Parallel()
	authority := catest.Start(t, catest.Options{})
	dir := t.TempDir()
	m, err := enroll.Issue(t.Context(), enroll.Config{URL: authority.URL, Dir: dir, Token: once(authority.Token(t, "ingester"))})
	if err != nil {
		t.Fatal(err)
	}
	thief := newImpostor(t, m.Certificate, authority.Roots())
	thief.refused(t, authority, dir)

	// Who names it accepts it, as a stock step-ca; another name changes nothing.
	for _, tc := range []struct {
		name string
		want int32
	}{{"ca.example", 0}, {"ingester-module", 1}} {
		before := thief.requests.Load()
		_, err := enroll.Renew(t.Context(), enroll.Config{URL: thief.URL, Dir: dir, AuthorityName: tc.name})
		if got := thief.requests.Load() - before; err == nil || got != tc.want {
			t.Errorf("by the name %s: %d requests, %v", tc.name, got, err)
		}
	}
	if _, err := enroll.New(enroll.Config{URL: authority.URL, Dir: dir, AuthorityName: "*.example"}); err == nil {
		t.Error("a pattern was accepted as the name of an authority")
	}
}

// TestRevokedAuthorityIsRefused expects that a server with a revoked certificate of the
// authority, whose key was stolen, is refused by services that have the list.
func TestRevokedAuthorityIsRefused(t *testing.T) {
	t.Parallel()
	authority := catest.Start(t, catest.Options{})
	var stolen tls.Certificate
	ctx, cancel := context.WithCancel(t.Context())
	err := authority.Authority.Watch(ctx, func(id ca.ServerIdentity) error {
		cert := id.Certificate
		stolen = cert
		cancel()
		return nil
	})
	if err != nil || stolen.Leaf == nil {
		t.Fatalf("no certificate of the authority: %v", err)
	}
	cfg := enroll.Config{URL: authority.URL, Dir: t.TempDir(), Token: once(authority.Token(t, "ingester"))}
	if _, err := enroll.Issue(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	thief := newImpostor(t, stolen, authority.Roots())
	cfg.URL = thief.URL
	if _, err := enroll.Renew(t.Context(), cfg); errors.Is(err, enroll.ErrNotAuthority) || thief.requests.Load() == 0 {
		t.Fatalf("before the revocation: %v", err)
	}
	record, err := ca.StateDir(authority.Dir).OpenRecord(t.Context())
	if err == nil {
		err = errors.Join(record.Revoke(t.Context(), stolen.Leaf.SerialNumber.String(), 1, "stolen"), record.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	cfg.URL = authority.URL
	if _, err := enroll.Renew(t.Context(), cfg); err != nil { // brings the list
		t.Fatal(err)
	}
	cfg.URL = thief.URL
	for name, use := range map[string]func(context.Context, enroll.Config) error{
		"renew": func(ctx context.Context, cfg enroll.Config) error { _, err := enroll.Renew(ctx, cfg); return err },
		"issue": func(ctx context.Context, cfg enroll.Config) error { _, err := enroll.Issue(ctx, cfg); return err },
	} {
		before := thief.requests.Load()
		if err := use(t.Context(), cfg); !errors.Is(err, enroll.ErrNotAuthority) || !strings.Contains(err.Error(), "is revoked") || thief.requests.Load() != before {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSourceDoesNotFollowAnImpostor expects that a running source finds the impostor out
// in all that it does, and goes on when the authority is back.
func TestSourceDoesNotFollowAnImpostor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		src := w.source()
		stop := w.watch(src)
		time.Sleep(10 * time.Minute)
		w.ca.pose(t, true)
		before := w.ca.total()
		time.Sleep(2 * time.Hour) // looks, renewals, and proofs of the key when the certificate is over
		st := src.Status()
		if got := w.ca.total() - before; got != 0 {
			t.Errorf("%d requests were sent", got)
		}
		for _, err := range []string{st.RenewalError, st.TrustError, st.RevokedError} {
			if !strings.Contains(err, enroll.ErrNotAuthority.Error()) {
				t.Errorf("an error is %q", err)
			}
		}
		w.ca.mu.Lock()
		w.ca.grace = 24 * time.Hour
		w.ca.mu.Unlock()
		w.ca.pose(t, false)
		time.Sleep(time.Hour)
		if st := src.Status(); st.RenewalError != "" || st.TrustError != "" || st.RevokedError != "" || !time.Now().Before(st.NotAfter) {
			t.Errorf("with the authority again: %+v", st)
		}
		stop()
	})
}

// TestAuthorityName expects that AuthorityName is compared with the names of the
// server's certificate, of each kind.
func TestAuthorityName(t *testing.T) {
	a, url := listen(t)
	a.pose(t, true)
	for name, ok := range map[string]bool{"": false, caHost: true, "127.0.0.1": true, "127.0.0.2": false, "ca.tes": false} {
		c, err := enroll.NewClient(url, a.bundle(), nil)
		if err != nil {
			t.Fatal(err)
		}
		c.AuthorityName = name
		if err := c.Health(t.Context()); (err == nil) != ok || !ok && !errors.Is(err, enroll.ErrNotAuthority) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
