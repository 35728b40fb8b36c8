package catest

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// Check derives the state anew from the disk, and compares it with the record. Call it after
// each act.
//
//   - Every certificate parses, says what its row says, chains to a root that this authority
//     has ever had, and does not outlive its issuer.
//   - No serial occurs twice.
//   - A lineage begins with a first certificate, and stays with one service.
//   - Every certificate and every revocation has its event.
//   - The log verifies.
//   - Files with keys, and the record, have mode 0600.
func (c *CA) Check(t testing.TB) {
	t.Helper()
	rec, err := ca.StateDir(c.Dir).OpenRecord(t.Context())
	if err != nil {
		t.Fatalf("check: %v", err)
	}
	defer func() {
		if err := rec.Close(); err != nil {
			t.Errorf("check: %v", err)
		}
	}()
	bySerial := make(map[string]record.Certificate)
	for q := (record.Query{Limit: 1000}); ; {
		page, next, err := rec.List(t.Context(), q)
		if err != nil {
			t.Fatalf("check: %v", err)
		}
		for _, e := range page {
			if _, twice := bySerial[e.Serial]; twice {
				t.Errorf("check: serial %s is listed twice", e.Serial)
			}
			bySerial[e.Serial] = e
		}
		if q.Cursor = next; next == "" {
			break
		}
	}
	roots := everyRoot(t, c.Dir)
	for _, e := range bySerial {
		checkCertificate(t, e, roots)
		checkLineage(t, e, bySerial)
	}
	checkEvents(t, rec, bySerial)
	checkLog(t, rec)
	checkModes(t, c.Dir)
}

// everyRoot reads all roots that the authority has ever had. Roots that were removed from the
// trust bundle stay on disk, because certificates under them are still in the record.
func everyRoot(t testing.TB, dir string) []*x509.Certificate {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "certs", "*.crt"))
	if err != nil {
		t.Fatalf("check: %v", err)
	}
	var roots []*x509.Certificate
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatalf("check: %v", err)
		}
		certs, err := pemfile.Certificates(data)
		if err != nil {
			t.Fatalf("check: %s: %v", p, err)
		}
		roots = append(roots, slices.DeleteFunc(certs, func(x *x509.Certificate) bool { return x.CheckSignatureFrom(x) != nil })...)
	}
	return roots
}

// checkCertificate compares a row with the certificate in it, and verifies the certificate at
// the time of its issue.
func checkCertificate(t testing.TB, e record.Certificate, roots []*x509.Certificate) {
	t.Helper()
	leaf, err := x509.ParseCertificate(e.DER)
	if err != nil {
		t.Errorf("check: certificate %s: %v", e.Serial, err)
		return
	}
	chain, err := x509.ParseCertificates(e.Chain)
	if err != nil || len(chain) == 0 {
		t.Errorf("check: chain of %s: %d certificates, %v", e.Serial, len(chain), err)
		return
	}
	want := record.NewCertificate(append([]*x509.Certificate{leaf}, chain...), e.IssuedAt)
	if want.Serial != e.Serial || want.KeyHash != e.KeyHash || want.Issuer != e.Issuer || !want.NotAfter.Equal(e.NotAfter) || !slices.Equal(want.Names, e.Names) {
		t.Errorf("check: the row of %s does not say what the certificate says", e.Serial)
	}
	// ACME leaves out a common name that is not one of the names.
	if cn := leaf.Subject.CommonName; cn != e.Service && (cn != "" || slices.Contains(e.Names, e.Service)) {
		t.Errorf("check: %s is for %q, its row says %q", e.Serial, cn, e.Service)
	}
	if leaf.NotAfter.After(chain[0].NotAfter) {
		t.Errorf("check: %s outlives its issuer", e.Serial)
	}
	if !e.ProofUntil.IsZero() && leaf.NotAfter.After(e.ProofUntil) {
		t.Errorf("check: %s ends at %s, after its proof at %s", e.Serial, leaf.NotAfter, e.ProofUntil)
	}
	at := e.IssuedAt.Add(-time.Millisecond).Truncate(time.Second)
	if e.Caller == "operator" { // a fixture is valid at another time than that of its issue
		if !at.Before(leaf.NotBefore) && !at.After(leaf.NotAfter) {
			t.Errorf("check: %s is a fixture, and was valid when it was issued", e.Serial)
		}
		at = leaf.NotBefore
	}
	if ahead := leaf.NotBefore.Sub(at); ahead > 0 && ahead <= time.Minute { // the clock of the client was ahead
		at = leaf.NotBefore
	}
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots: certs.Pool(roots...), Intermediates: certs.Pool(chain...), CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		t.Errorf("check: %s: %v", e.Serial, err)
	}
}

// checkLineage checks that a renewal continues the lineage of a certificate that existed and
// was not revoked, and that both rest on a proof with the same end.
func checkLineage(t testing.TB, e record.Certificate, all map[string]record.Certificate) {
	t.Helper()
	if e.Previous == "" {
		if e.Lineage != e.Serial {
			t.Errorf("check: %s renews nothing, its lineage is %s", e.Serial, e.Lineage)
		}
		return
	}
	before, ok := all[e.Previous]
	if !ok || before.Lineage != e.Lineage || before.Service != e.Service {
		t.Errorf("check: %s renews %s, which is not of its lineage and service", e.Serial, e.Previous)
	}
	if e.Kind != kinds.Issued && !before.ProofUntil.IsZero() && !e.ProofUntil.Equal(before.ProofUntil) {
		t.Errorf("check: %s rests on a proof until %s, and renews one until %s", e.Serial, e.ProofUntil, before.ProofUntil)
	}
	if before.Revocation != nil && before.Revocation.RevokedAt.Before(e.IssuedAt) {
		t.Errorf("check: %s was issued after %s, which it renews, was revoked", e.Serial, before.Serial)
	}
}

// checkEvents expects one event for each certificate and each revocation.
func checkEvents(t testing.TB, rec *ca.Record, all map[string]record.Certificate) {
	t.Helper()
	seen := make(map[[2]string]int)
	for after := int64(0); ; {
		events, err := rec.Events(t.Context(), "", after, 1000)
		if err != nil {
			t.Fatalf("check: %v", err)
		}
		if len(events) == 0 {
			break
		}
		for _, e := range events {
			seen[[2]string{e.Kind, e.Serial}]++
			after = e.ID
		}
	}
	for serial, e := range all {
		if n := seen[[2]string{e.Kind, serial}]; n != 1 {
			t.Errorf("check: certificate %s has %d events of kind %s, want 1", serial, n, e.Kind)
		}
		if n := seen[[2]string{"revoked", serial}]; (n == 1) != (e.Revocation != nil) {
			t.Errorf("check: certificate %s has %d revocation events", serial, n)
		}
	}
}

// checkLog expects each event to be in the log or to wait for its place.
func checkLog(t testing.TB, rec *ca.Record) {
	t.Helper()
	report, err := rec.VerifyLog(t.Context(), ca.LogOptions{})
	if err != nil {
		t.Fatalf("check: %v", err)
	}
	for _, f := range report.Findings {
		t.Errorf("check: log entry %d is %s: %s", f.Index, f.Fault, f.Text)
	}
}

// checkModes expects mode 0600 on keys and on the files of the database.
func checkModes(t testing.TB, dir string) {
	t.Helper()
	secrets, err := filepath.Glob(filepath.Join(dir, "secrets", "*"))
	if err != nil {
		t.Fatalf("check: %v", err)
	}
	records, err := filepath.Glob(filepath.Join(dir, "pki.db*"))
	if err != nil {
		t.Fatalf("check: %v", err)
	}
	for _, p := range append(secrets, records...) {
		info, err := os.Stat(p)
		if err != nil {
			continue // -wal and -shm come and go
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("check: %s has mode %o, want 600", p, info.Mode().Perm())
		}
	}
}
