package audit_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/report"
	"github.com/artstore/artstore-pki/audit/source"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/testpki"
)

// TestMain fixes the time zone: tables show local times, and golden ones must be the same everywhere.
func TestMain(m *testing.M) {
	time.Local = time.UTC
	m.Run()
}

// patience is far above what a hostile input takes, and far below what it would if
// somebody waited, read to the end, or went over the same bytes again and again.
const patience = time.Minute

// pair is a certificate with its key, and what issued it.
type pair struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	issuer *pair
}

// spec changes a template.
type spec func(*x509.Certificate)

func dates(from, to time.Time) spec {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = from, to }
}

// lives makes a certificate that was issued ago and lives life, back-dated by nothing.
func lives(ago, life time.Duration) spec {
	now := time.Now().Truncate(time.Second)
	return dates(now.Add(-ago), now.Add(life-ago))
}

// holds makes a certificate for another key than the one it comes with.
func holds(pub crypto.PublicKey) spec { return func(c *x509.Certificate) { c.PublicKey = pub } }

func named(names ...string) spec {
	return func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = names, nil }
}

func newPair(t testing.TB, issuer *pair, cn string, specs ...spec) *pair {
	t.Helper()
	key := testpki.Key(t)
	tpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: cn}, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour).Truncate(time.Second), NotAfter: time.Now().Add(365 * 24 * time.Hour).Truncate(time.Second),
		DNSNames: []string{cn, "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, s := range specs {
		s(tpl)
	}
	var by *testpki.Pair
	if issuer != nil {
		by = &testpki.Pair{Cert: issuer.cert, Key: issuer.key}
	}
	return &pair{cert: testpki.Issue(t, by, tpl, key).Cert, key: key, issuer: issuer}
}

func authority(c *x509.Certificate) {
	c.IsCA, c.KeyUsage, c.DNSNames, c.IPAddresses, c.ExtKeyUsage = true, x509.KeyUsageCertSign, nil, nil, nil
	c.NotAfter = time.Now().Add(10 * 365 * 24 * time.Hour).Truncate(time.Second)
}

// hierarchy is root, intermediate and a leaf.
func hierarchy(t testing.TB, specs ...spec) (root, intermediate, leaf *pair) {
	t.Helper()
	root = newPair(t, nil, "Test Root", authority)
	intermediate = newPair(t, root, "Test Intermediate", authority)
	return root, intermediate, newPair(t, intermediate, "ingester", specs...)
}

func encode(certs ...*pair) (out []byte) {
	for _, p := range certs {
		out = append(out, pemfile.EncodeCertificates([]*x509.Certificate{p.cert})...)
	}
	return out
}

func (p *pair) keyPEM(t testing.TB) []byte {
	t.Helper()
	b, err := pemfile.EncodePrivateKey(p.key)
	must(t, err)
	return b
}

func (p *pair) tls(chain ...*pair) tls.Certificate {
	c := tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key}
	for _, i := range chain {
		c.Certificate = append(c.Certificate, i.cert.Raw)
	}
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write puts files into a new directory; a key gets 0600.
func write(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, data, 0o600))
	}
	return dir
}

// static is a source of subjects that are given.
type static []audit.Subject

func (s static) Collect(_ context.Context, yield func(audit.Subject)) {
	for _, one := range s {
		yield(one)
	}
}

func paths(list ...string) source.Targets { return source.Targets{Names: list} }

// keptReport keeps all rows, worst first, and renders them as often as wanted.
type keptReport struct {
	*audit.Summary
	Rows []audit.Row
}

func (r *keptReport) Row(row *audit.Row) error     { r.Rows = append(r.Rows, *row); return nil }
func (r *keptReport) End(sum *audit.Summary) error { r.Summary = sum; return nil }

func (r *keptReport) render(format string, w io.Writer, width int) error {
	out, err := report.New(format, w, report.Terminal{Width: width})
	for i := 0; err == nil && i < len(r.Rows); i++ {
		err = out.Row(&r.Rows[i])
	}
	if err != nil {
		return err
	}
	return out.End(r.Summary)
}

func (r *keptReport) WriteTable(w io.Writer, width int) error { return r.render("table", w, width) }
func (r *keptReport) WriteJSON(w io.Writer) error             { return r.render("json", w, 0) }
func (r *keptReport) WriteNDJSON(w io.Writer) error           { return r.render("ndjson", w, 0) }
func (r *keptReport) WriteCSV(w io.Writer) error              { return r.render("csv", w, 0) }
func (r *keptReport) WritePrometheus(w io.Writer) error       { return r.render("prom", w, 0) }
func (r *keptReport) Explain(w io.Writer) error               { return r.render("text", w, 0) }

func judged(ctx context.Context, cfg audit.Config) (*keptReport, error) {
	r := &keptReport{}
	cfg.Report = r
	_, err := audit.Run(ctx, cfg)
	slices.SortStableFunc(r.Rows, worstFirst)
	return r, err
}

func run(t testing.TB, sources ...audit.Source) *keptReport {
	t.Helper()
	r, err := judged(t.Context(), audit.Config{Sources: sources})
	must(t, err)
	return r
}

func seen(c *x509.Certificate) *cert.Certificate { return cert.FromX509(c) }

func seenAll(pairs []*pair) (out []*cert.Certificate) {
	for _, p := range pairs {
		out = append(out, seen(p.cert))
	}
	return out
}

// states maps each place, relative to dir, to its state and its findings' ids.
func states(t testing.TB, r *keptReport, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, row := range r.Rows {
		place := row.Place
		if rel, err := filepath.Rel(dir, place); err == nil && slices.Contains([]string{"file", "key", "crl"}, row.Kind) {
			place = rel
		}
		if row.Block > 1 {
			place += "#" + string(rune('0'+row.Block))
		}
		text := row.State
		for _, f := range row.Findings {
			if f.Check == "not-judged" { // of almost every row without a bundle
				continue
			}
			text += " " + f.Check
		}
		if row.Err != nil {
			text += " " + row.Err.Error()
		}
		out[place] = text
	}
	return out
}

func want(t testing.TB, got, want map[string]string) {
	t.Helper()
	for place, state := range want {
		if got[place] != state {
			t.Errorf("%s: %q, want %q", place, got[place], state)
		}
		delete(got, place)
	}
	for place, state := range got {
		t.Errorf("unexpected: %s: %q", place, state)
	}
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func bundleOf(pairs []*pair) (out []*x509.Certificate) {
	for _, p := range pairs {
		out = append(out, p.cert)
	}
	return out
}
