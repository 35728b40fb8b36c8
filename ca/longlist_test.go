package ca_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/doctor"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// manyRevoked puts n revocations of the issuing intermediate into the record, as
// another process would. The serials are as long as ours.
func manyRevoked(t testing.TB, c *catest.CA, n int) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(c.Dir, "pki.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	_, err = db.ExecContext(t.Context(), `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO revocations (serial, certificate, lineage, issuer, not_after, revoked_at, reason, note, caller, mark)
		SELECT '217109779359020444219036' || (1000000000000 + i), 10000000 + i, '', ?, ?, ?, 1, '', 'test', 1 FROM n`,
		n, hexID(issuingCertificate(t, c)), time.Now().Add(time.Hour).UnixMilli(), time.Now().UnixMilli())
	if err == nil {
		_, err = db.ExecContext(t.Context(), `UPDATE revocation_mark SET mark = mark + 1`)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A client reads a list of 300 000 entries, and refuses the certificate that was
// revoked last.
func TestClientsTakeLongLists(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	entries := 300_000
	if raceEnabled {
		entries = 30_000
	}
	c := catest.Start(t, catest.Options{})
	cfg := enroll.Config{
		URL: c.URL, Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler),
		Token: func(context.Context) (secret.String, error) { return c.Token(t, "storage-element"), nil },
	}
	if _, err := enroll.Issue(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	victim, err := enroll.Issue(t.Context(), enroll.Config{
		URL: c.URL, InMemory: true, Token: func(context.Context) (secret.String, error) { return c.Token(t, "ingester"), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	manyRevoked(t, c, entries)
	c.Revoke(t, victim.Certificate.Leaf.SerialNumber.String())
	m, err := enroll.Renew(t.Context(), cfg)
	if err != nil || len(m.Revoked) != 2 { // of the intermediate and of the root
		t.Fatalf("%d lists: %v", len(m.Revoked), err)
	}
	if n := len(m.Revoked[0].RevokedCertificateEntries); n != entries+1 {
		t.Fatalf("a list of %d entries", n)
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	id, err := rotation.Open(t.Context(), rotation.Config{Source: rotation.Static(m), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = id.Close() }()
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("an identity holds %d MiB for it", (after.HeapAlloc-before.HeapAlloc)>>20)
	if held := int64(after.HeapAlloc) - int64(before.HeapAlloc); held > int64(entries)*200 {
		t.Errorf("an identity holds %d bytes for each entry", held/int64(entries))
	}
	if st := id.Status(); st.RevokedSerials != entries+1 {
		t.Errorf("%d serials in effect", st.RevokedSerials)
	}
	server, err := id.Server(rotation.ServerOptions{Authorize: rotation.AllowNames("ingester")})
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	go func() {
		roots := x509.NewCertPool()
		for _, r := range m.Roots {
			roots.AddCert(r)
		}
		client := tls.Client(far, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: "storage-element", Certificates: []tls.Certificate{victim.Certificate}})
		_, _ = client.Read(make([]byte, 1)) // until the server has closed
		_ = far.Close()
	}()
	defer func() { _ = near.Close() }()
	if err := tls.Server(near, server.TLSConfig()).HandshakeContext(t.Context()); !errors.Is(err, rotation.ErrRevoked) {
		t.Errorf("the certificate that was revoked last: %v", err)
	}
}

// The authority logs that its lists are so long that clients may refuse to read them.
func TestLongListsAreToldOf(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	if raceEnabled {
		t.Skip("half a million entries take minutes under the race detector, and the test runs without it, too")
	}
	c := catest.Start(t, catest.Options{})
	const enough = stepapi.MaxRevoked/2/74 + 10_000
	manyRevoked(t, c, enough)
	var log strings.Builder
	reg := prometheus.NewRegistry()
	a, err := ca.Open(t.Context(), ca.Options{Dir: c.Dir, Logger: slog.New(slog.NewTextHandler(&log, nil)), Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	if err := a.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "the revocation lists are long"); n != 1 {
		t.Errorf("told %d times:\n%s", n, log.String())
	}
	if size := metricValue(t, reg, "artstore_ca_revoked_bytes", ""); size < stepapi.MaxRevoked/2 || size > stepapi.MaxRevoked {
		t.Errorf("the metric says %.0f bytes", size)
	}
	found := false
	for _, d := range doctor.Run(t.Context(), doctor.Options{Dir: c.Dir}) {
		found = found || d.Check == "crl" && d.Severity == doctor.Warning && strings.Contains(d.Text, "GET /revoked is some")
	}
	if !found {
		t.Error("doctor says nothing")
	}
	// The metric has the length of the answer.
	status, body := newClient(t, c, nil).do("GET", "/revoked", nil)
	said := metricValue(t, reg, "artstore_ca_revoked_bytes", "")
	if ratio := said / float64(len(body)); status != 200 || ratio < 0.95 || ratio > 1.05 {
		t.Errorf("status %d, %d bytes where the metric says %.0f", status, len(body), said)
	}
}
