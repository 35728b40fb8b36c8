package ca_test

import (
	"bytes"
	"crypto"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/doctor"
	"github.com/artstore/artstore-pki/ca/internal/acmetest"
	"github.com/artstore/artstore-pki/ca/policy"
)

// Each kind of challenge leads to a certificate of the profile. It is in the record
// like the others, renews like them, and ends when it is revoked.
func TestACME(t *testing.T) {
	t.Parallel()
	w := acmetest.Start(t, catest.Options{})
	cl := w.Account(t)
	for _, kind := range []string{"http-01", "dns-01", "tls-alpn-01"} {
		t.Run(kind, func(t *testing.T) {
			got := w.Obtain(t, cl, kind, "web.example", "api.example")
			entry, err := openRecord(t, w.CA).Show(t.Context(), got.Leaf.SerialNumber.String())
			if err != nil {
				t.Fatal(err)
			}
			if entry.Service != "web" || entry.Provisioner != "acme" || !strings.HasPrefix(entry.Caller, "acme ") || !slices.Equal(entry.Names, []string{"api.example", "web.example"}) {
				t.Errorf("recorded as %s by %s of %s for %q", entry.Service, entry.Caller, entry.Provisioner, entry.Names)
			}
			if cn := got.Leaf.Subject.CommonName; cn != "" {
				t.Errorf("common name %q: a client would order it when it renews", cn)
			}
			if d := time.Until(got.Leaf.NotAfter); d < 23*time.Hour || d > 24*time.Hour {
				t.Errorf("it lives for %s, the profile says 24h", d)
			}
			status, body := newClient(t, w.CA, got).do("POST", "/renew", nil)
			if status != http.StatusCreated {
				t.Errorf("renewing over mTLS: %d %s", status, body)
			}
			w.Check(t)
		})
	}
}

// The account that has ordered a certificate may revoke it, and so may the holder of
// its key. Everybody else is refused.
func TestACMERevoke(t *testing.T) {
	t.Parallel()
	w := acmetest.Start(t, catest.Options{})
	cl, stranger := w.Account(t), w.Account(t)
	one := w.Obtain(t, cl, "http-01", "web.example")
	two := w.Obtain(t, cl, "http-01", "web.example")
	acmetest.RefusedWith(t, stranger.RevokeCert(t.Context(), nil, one.Certificate[0], acme.CRLReasonUnspecified), "unauthorized", "did not order")
	acmetest.RefusedWith(t, stranger.RevokeCert(t.Context(), newKey(t), one.Certificate[0], acme.CRLReasonUnspecified), "unauthorized", "not signed by the key")
	acmetest.RefusedWith(t, cl.RevokeCert(t.Context(), nil, one.Certificate[0], acme.CRLReasonCertificateHold), "badRevocationReason", "")
	acmetest.RefusedWith(t, cl.RevokeCert(t.Context(), nil, w.Roots()[0].Raw, acme.CRLReasonUnspecified), "unauthorized", "not in the record")
	if err := cl.RevokeCert(t.Context(), nil, one.Certificate[0], acme.CRLReasonKeyCompromise); err != nil {
		t.Errorf("by the account: %v", err)
	}
	if err := stranger.RevokeCert(t.Context(), two.PrivateKey.(crypto.Signer), two.Certificate[0], acme.CRLReasonSuperseded); err != nil {
		t.Errorf("by the key: %v", err)
	}
	for serial, reason := range map[string]int{one.Leaf.SerialNumber.String(): 1, two.Leaf.SerialNumber.String(): 4} {
		entry, err := openRecord(t, w.CA).Show(t.Context(), serial)
		if err != nil || entry.Revocation == nil || entry.Revocation.Reason != reason {
			t.Errorf("%s is not revoked for reason %d: %+v, %v", serial, reason, entry.Revocation, err)
		}
	}
	if status, _ := newClient(t, w.CA, one).do("POST", "/renew", nil); status != http.StatusUnauthorized {
		t.Errorf("renewing a revoked certificate: %d", status)
	}
	w.Check(t)
}

// Without the provisioner there is no route of ACME.
func TestNoACME(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	for _, path := range []string{"/acme/acme/directory", "/acme/acme/new-nonce"} {
		if status, body := newClient(t, c, nil).do("GET", path, nil); status != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, _ := newClient(t, c, nil).do("POST", "/acme/acme/new-account", "{}"); status != http.StatusNotFound {
		t.Errorf("new-account: %d", status)
	}
}

// A client that asks too often gets a problem document of ACME (RFC 8555 §6.6), and a
// bad signature counts as many requests.
func TestACMERateLimit(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: func(b []byte) []byte {
		return append(withProvisioner("  - {type: ACME, name: acme}\n")(b), "\nlimits: {per_address: {per_second: 0.01, burst: 40}}\n"...)
	}})
	r := acmetest.NewRaw(t, c)
	const path = "/acme/acme/new-account"
	bad := strings.Replace(r.Sign(path, map[string]any{}, nil), `"signature":"`, `"signature":"AAAA`, 1)
	for i := range 40 {
		status, kind, resp := r.Post(path, bad)
		if status != http.StatusTooManyRequests {
			continue
		}
		if kind != "rateLimited" || resp.Header.Get("Retry-After") == "" || i > 21 {
			t.Errorf("after %d requests: %s, %q", i, kind, resp.Header.Get("Retry-After"))
		}
		return
	}
	t.Error("40 bad signatures, and no limit")
}

// Without its record the authority answers errors and no certificate.
func TestACMEWithoutRecord(t *testing.T) {
	t.Parallel()
	w := acmetest.Start(t, catest.Options{})
	r := acmetest.NewRaw(t, w.CA)
	r.Register()
	body := r.Sign("/acme/acme/new-order", map[string]any{"identifiers": []any{}}, nil)
	if err := w.Authority.CloseRecord(); err != nil {
		t.Fatal(err)
	}
	status, kind, resp := r.Post("/acme/acme/new-order", body)
	if status != http.StatusInternalServerError || kind != "serverInternal" {
		t.Errorf("%d %s", status, kind)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil || strings.Contains(string(text), "database") {
		t.Errorf("the answer tells of the inside: %s, %v", text, err)
	}
}

// Names that ACME cannot prove are logged when pki.yaml is read, and doctor warns of
// them.
func TestACMEUnprovableNames(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	c := catest.Start(t, catest.Options{
		Profiles: map[string]policy.Profile{"web": {Names: []string{"web.example", "und_er.internal", "localhost", "spiffe://a/b"}, ACME: true}},
		Edit:     withProvisioner("  - {type: ACME, name: acme}\n"),
	})
	a, err := ca.Open(t.Context(), ca.Options{Dir: c.Dir, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	if err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	var diagnoses strings.Builder
	for _, d := range doctor.Run(t.Context(), doctor.Options{Dir: c.Dir}) {
		diagnoses.WriteString(d.Severity + " " + d.Text + "\n")
	}
	for _, text := range []string{log.String(), diagnoses.String()} {
		if !strings.Contains(text, "und_er.internal") || !strings.Contains(text, "underscore") || !strings.Contains(text, "localhost") || strings.Contains(text, "spiffe") {
			t.Errorf("%s", text)
		}
	}
}

// External account keys are for profiles that exist, and for a bounded time.
func TestACMENewEABKey(t *testing.T) {
	t.Parallel()
	w := acmetest.Start(t, catest.Options{})
	r := openRecord(t, w.CA)
	for text, opt := range map[string]ca.EABOptions{
		"at least one profile":       {},
		"is no profile with acme":    {Profiles: []string{"web", "db"}},
		"only other, third, web":     {Profiles: []string{"nothing"}},
		"is not between 0 and 2160h": {Profiles: []string{"web"}, Life: ca.MaxEABLife + 1},
		"-1ns is not between 0 and":  {Profiles: []string{"web"}, Life: -1},
	} {
		if _, _, err := r.NewEABKey(t.Context(), opt); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %q", err, text)
		}
	}
	none := catest.Start(t, catest.Options{Profiles: profiles()})
	if _, _, err := openRecord(t, none).NewEABKey(t.Context(), ca.EABOptions{Profiles: []string{"web"}}); err == nil || !strings.Contains(err.Error(), "no provisioner of type ACME") {
		t.Errorf("%v", err)
	}
	k, key, err := r.NewEABKey(t.Context(), ca.EABOptions{Profiles: []string{"web", "web"}, Note: "rack 4"})
	if err != nil || len(k.Profiles) != 1 || key.IsZero() || k.Expires.Sub(k.Created) != ca.DefaultEABLife {
		t.Errorf("%+v, %v", k, err)
	}
}
