package ca_test

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/acmetest"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/internal/eventlog"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/logtest"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// A certificate that renews as fast as it can gets 50 live ones, and then a refusal,
// which is recorded. Other certificates of the service are not affected, and a
// revocation of the lineage revokes all of it.
func TestLineageIsBounded(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	stolen, honest := enrol(t, c, "storage", "storage"), enrol(t, c, "storage", "storage")
	thief := newClient(t, c, stolen)
	for i := range 49 {
		if status, body := thief.do("POST", "/renew", nil); status != http.StatusCreated {
			t.Fatalf("renewal %d: %d %s", i+1, status, body)
		}
	}
	for i, path := range []string{"/renew", "/rekey", "/renew"} {
		var body any
		if path == "/rekey" {
			body = stepapi.RekeyRequest{CSR: csr(t, newKey(t), "storage", "storage")}
		}
		status, answer := thief.do("POST", path, body)
		if m := message(t, answer); status != http.StatusForbidden || !strings.Contains(m, "profiles.storage.max_live_per_lineage") || !strings.Contains(m, "(rule: live certificates of a lineage)") {
			t.Errorf("%d more, %s: %d %s", i+1, path, status, answer)
		}
	}
	if status, body := newClient(t, c, honest).do("POST", "/renew", nil); status != http.StatusCreated {
		t.Errorf("another lineage of the service: %d %s", status, body)
	}
	rec := openRecord(t, c)
	events, err := rec.Events(t.Context(), "refused", 0, 10)
	if err != nil || len(events) != 3 || events[0].Rule != "live certificates of a lineage" || events[0].Serial != stolen.Leaf.SerialNumber.String() {
		t.Errorf("recorded as %+v, %v", events, err)
	}
	n, err := rec.RevokeSet(t.Context(), record.Selection{Lineage: stolen.Leaf.SerialNumber.String()}, 1, "stolen")
	if err != nil || n != 50 {
		t.Errorf("%d revoked with the lineage, %v; want 50", n, err)
	}
	if status, body := thief.do("POST", "/renew", nil); status != http.StatusUnauthorized || !strings.Contains(message(t, body), "was revoked") {
		t.Errorf("renewing after the revocation: %d %s", status, body)
	}
	c.Check(t)
}

// A certificate that was issued for a token of type X5C belongs to the lineage of the
// certificate behind the token, and counts.
func TestLineageCountsX5C(t *testing.T) {
	t.Parallel()
	few := policy.Profile{Names: []string{"few"}, MaxLivePerLineage: 3}
	c := catest.Start(t, catest.Options{Profiles: map[string]policy.Profile{"few": few}, Edit: withProvisioner(ownX5C)})
	cl, holder := newClient(t, c, nil), enrol(t, c, "few", "few")
	for i := range 4 {
		status, body := cl.do("POST", "/sign", x5cToken(t, c, holder, "/sign", nil).request(t, newKey(t), "few", "few"))
		if want := i < 2; (status == http.StatusCreated) != want || !want && !strings.Contains(message(t, body), "max_live_per_lineage") {
			t.Errorf("certificate %d: %d %s", i+2, status, body)
		}
	}
	c.Check(t)
}

// A full lineage is one line of the log, however often it asks, and each refusal is
// counted in the metrics.
func TestFullLineageIsTold(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pki")
	if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true, Profiles: map[string]policy.Profile{"few": {Names: []string{"few"}, MaxLivePerLineage: 2}}}); err != nil {
		t.Fatal(err)
	}
	var logged logtest.Buffer
	reg := prometheus.NewRegistry()
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir, Registerer: reg, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	chain, err := a.IssueFixture(t.Context(), "few", fixtureRequest(t, "few"), time.Now().Add(-24*time.Hour-time.Minute)) // expired, so it does not count
	if err != nil {
		t.Fatal(err)
	}
	lineage := chain[0].SerialNumber.String()
	for i := range 6 {
		err := a.RenewChain(t.Context(), chain)
		if want := i < 2; (err == nil) != want || !want && !strings.Contains(err.Error(), "max_live_per_lineage") {
			t.Errorf("renewal %d: %v", i+1, err)
		}
	}
	if n := metricValue(t, reg, "artstore_ca_requests_refused_total", "live certificates of a lineage"); n != 4 {
		t.Errorf("%v refusals are counted, want 4", n)
	}
	text := logged.String()
	if n := strings.Count(text, "level=ERROR"); n != 1 || !strings.Contains(text, "service=few lineage="+certs.HexSerial(lineage)+" live=2") {
		t.Errorf("told %d times, want once:\n%s", n, text)
	}
}

func TestMaxLivePerLineageConfig(t *testing.T) {
	t.Parallel()
	for n, bad := range map[int]bool{-1: true, 0: false, 1: false, 1000: false, 1001: true} {
		p := policy.Profile{Names: []string{"few"}, MaxLivePerLineage: n}
		_, err := setup.Init(t.Context(), setup.Options{Dir: filepath.Join(t.TempDir(), "pki"), PlainKeys: true, Profiles: map[string]policy.Profile{"few": p}})
		if bad != (err != nil) || bad && !strings.Contains(err.Error(), "max_live_per_lineage") {
			t.Errorf("%d: %v", n, err)
		}
	}
}

// renewals returns each way to renew a certificate. A way returns the status, the
// answer, and the key of the new certificate.
func renewals(t *testing.T, c *catest.CA) map[string]func(*tls.Certificate) (int, []byte, crypto.Signer) {
	t.Helper()
	return map[string]func(*tls.Certificate) (int, []byte, crypto.Signer){
		"renew": func(cert *tls.Certificate) (int, []byte, crypto.Signer) {
			status, body := newClient(t, c, cert).do("POST", "/renew", nil)
			return status, body, cert.PrivateKey.(crypto.Signer)
		},
		"rekey": func(cert *tls.Certificate) (int, []byte, crypto.Signer) {
			key := newKey(t)
			status, body := newClient(t, c, cert).do("POST", "/rekey", stepapi.RekeyRequest{CSR: csr(t, key, "any", "any")})
			return status, body, key
		},
		"renewal token": func(cert *tls.Certificate) (int, []byte, crypto.Signer) {
			token := proofFor(t, c, cert, "/renew", nil)
			status, body := newClient(t, c, nil).do("POST", "/renew", nil, "Authorization", "Bearer "+token)
			return status, body, cert.PrivateKey.(crypto.Signer)
		},
	}
}

// endsBy renews a certificate in every way, and the new certificates too, and checks
// that none ends after the given moment.
func endsBy(t *testing.T, c *catest.CA, cert *tls.Certificate, end time.Time) {
	t.Helper()
	for way, renew := range renewals(t, c) {
		got := cert
		for i := range 2 {
			status, body, key := renew(got)
			if status != http.StatusCreated {
				t.Fatalf("%s, %d: %d %s", way, i+1, status, body)
			}
			if got = pair(t, body, key); got.Leaf.NotAfter.After(end) {
				t.Errorf("%s, %d: it ends at %s, after the proof at %s", way, i+1, got.Leaf.NotAfter, end)
			}
		}
	}
}

// edit changes the record as another process would.
func edit(t *testing.T, c *catest.CA, text string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(c.Dir, "pki.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(t.Context(), text, args...); err != nil {
		t.Fatal(err)
	}
}

// refusedByProof expects the rule in the answer to every way to renew.
func refusedByProof(t *testing.T, c *catest.CA, cert *tls.Certificate, says string) {
	t.Helper()
	for way, renew := range renewals(t, c) {
		status, body, _ := renew(cert)
		if m := message(t, body); status != http.StatusForbidden || !strings.Contains(m, says) || !strings.Contains(m, "(rule: within the proof's life)") {
			t.Errorf("%s: %d %s, want %q", way, status, body, says)
		}
	}
}

// In a lineage that began with a token of type X5C no certificate ends after the one
// behind the token, in every way to renew, and also if another authority has issued
// that one.
func TestRenewalsEndWithX5C(t *testing.T) {
	t.Parallel()
	root, device := foreignHolder(t, "serial-4711", "storage")
	file := filepath.Join(t.TempDir(), "devices.pem")
	damage.File(t, file, pemfile.EncodeCertificates([]*x509.Certificate{root}))
	for name, entry := range map[string]string{"ours": ownX5C, "another's": fmt.Sprintf("  - {type: X5C, name: holders, roots: %q}\n", file)} {
		t.Run(name, func(t *testing.T) {
			c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: withProvisioner(entry)})
			cl, holder, key := newClient(t, c, nil), device, newKey(t)
			if name == "ours" {
				holderKey := newKey(t)
				req := signRequest(t, c.Token(t, "storage", "storage"), holderKey, "storage", "storage")
				req.NotAfter = "10m"
				_, body := cl.do("POST", "/sign", req)
				holder = pair(t, body, holderKey)
			}
			token := x5cToken(t, c, holder, "/sign", map[string]any{"sub": "storage", "sans": []string{"storage"}})
			status, body := cl.do("POST", "/sign", token.request(t, key, "storage", "storage"))
			if status != http.StatusCreated {
				t.Fatalf("sign: %d %s", status, body)
			}
			child := pair(t, body, key)
			endsBy(t, c, child, holder.Leaf.NotAfter)
			entry, err := openRecord(t, c).Show(t.Context(), child.Leaf.SerialNumber.String())
			if err != nil || !entry.ProofUntil.Equal(holder.Leaf.NotAfter) {
				t.Errorf("recorded until %s, %v", entry.ProofUntil, err)
			}
			c.Check(t)

			// An older version has kept no end of the proof: the end is that of the certificate.
			edit(t, c, `UPDATE certificates SET proof_until = 0`)
			endsBy(t, c, child, child.Leaf.NotAfter)
			edit(t, c, `UPDATE certificates SET proof_until = ?`, time.Now().Add(9*time.Second).UnixMilli())
			refusedByProof(t, c, child, "the certificate that vouched for this lineage ends at")
			report, err := openRecord(t, c).VerifyLog(t.Context(), ca.LogOptions{})
			if err != nil || len(report.Findings) == 0 || report.Findings[0].Fault != eventlog.FaultAltered {
				t.Errorf("the edit of the record is not found: %+v, %v", report.Findings, err)
			}
		})
	}
}

// Names that were proved once hold for lifetime.max of the profile. After that they
// must be proved again.
func TestRenewalsEndWithACME(t *testing.T) {
	t.Parallel()
	w := acmetest.Start(t, catest.Options{})
	w.Rewrite(t, func(b []byte) []byte {
		return []byte(strings.ReplaceAll(string(b), "    acme: true\n", "    acme: true\n    lifetime: {max: 60h}\n"))
	})
	if err := w.Authority.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	cl, before := w.Account(t), time.Now()
	got := w.Obtain(t, cl, "http-01", "web.example")
	end := time.Now().Add(60 * time.Hour)
	endsBy(t, w.CA, got, end)
	entry, err := openRecord(t, w.CA).Show(t.Context(), got.Leaf.SerialNumber.String())
	if err != nil || entry.ProofUntil.After(end) || entry.ProofUntil.Before(before.Add(60*time.Hour-time.Second)) {
		t.Errorf("recorded until %s, %v", entry.ProofUntil, err)
	}
	status, body := newClient(t, w.CA, got).do("POST", "/renew", nil)
	if status != http.StatusCreated {
		t.Fatalf("renew: %d %s", status, body)
	}
	second := pair(t, body, got.PrivateKey.(crypto.Signer))
	if d := time.Until(second.Leaf.NotAfter); d < 23*time.Hour {
		t.Errorf("a renewal within lifetime.max lives for %s, not for the default", d)
	}
	w.Check(t)

	edit(t, w.CA, `UPDATE certificates SET proof_until = ?`, time.Now().Add(10*time.Hour).UnixMilli())
	endsBy(t, w.CA, second, time.Now().Add(10*time.Hour))
	edit(t, w.CA, `UPDATE certificates SET proof_until = ?`, time.Now().Add(-time.Hour).UnixMilli())
	refusedByProof(t, w.CA, second, "prove the names again")
	// An older version has kept no end of the proof: the first certificate decides.
	edit(t, w.CA, `UPDATE certificates SET proof_until = 0`)
	endsBy(t, w.CA, second, end)
	edit(t, w.CA, `UPDATE certificates SET proof_until = 0`)
	edit(t, w.CA, `UPDATE certificates SET issued_at = ? WHERE serial = ?`, time.Now().Add(-61*time.Hour).UnixMilli(), got.Leaf.SerialNumber.String())
	edit(t, w.CA, `UPDATE certificates SET not_after = issued_at WHERE serial = ?`, got.Leaf.SerialNumber.String())
	refusedByProof(t, w.CA, second, "prove the names again")
}
