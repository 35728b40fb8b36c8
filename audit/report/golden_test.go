package report_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-runewidth"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/report"
	"github.com/artstore/artstore-pki/audit/source"
)

// random matches the texts that differ from run to run because keys do, and the table of
// checks, which has tests of its own.
var random = regexp.MustCompile(`[0-9a-f]{64}|[A-Za-z0-9+/]{43}=|"rules":\[.*\]|"ruleIndex":\d+`)

// golden compares got with a file below testdata, or writes that file.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	got = random.ReplaceAll(got, []byte("(random)"))
	if *update {
		certtest.Must(t, os.WriteFile(path, got, 0o600))
	}
	want, err := os.ReadFile(path)
	certtest.Must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("not what is in %s; go test ./audit/report -run %s -update writes it, and git diff shows it:\n%s", path, t.Name(), got)
	}
}

// numbered sets a serial number whose width is always the same.
func numbered(n int64) certtest.Spec {
	return func(c *x509.Certificate) { c.SerialNumber = new(big.Int).Add(big.NewInt(1<<60), big.NewInt(n)) }
}

// everything returns a report with a value in each field that a format shows.
func everything(t *testing.T) *audittest.Report {
	t.Helper()
	now := certtest.Doomsday()
	decade := certtest.Dates(now.Add(-100*certtest.Day), now.Add(3650*certtest.Day))
	root := certtest.New(t, nil, "Test Root", certtest.Authority, decade, numbered(1))
	intermediate := certtest.New(t, root, "Test Intermediate", certtest.Authority, decade, numbered(2))
	leaf := func(n int64, cn string, from, to time.Duration) audit.Subject {
		p := certtest.New(t, intermediate, cn, certtest.Dates(now.Add(from), now.Add(to)), numbered(n))
		return audit.Subject{
			Kind: "file", Place: "/etc/" + cn + "/tls.crt", Cert: certtest.Seen(p.Cert),
			Chain: certtest.SeenAll([]*certtest.Pair{intermediate}), Bundle: certtest.SeenAll([]*certtest.Pair{root}),
		}
	}
	late := leaf(3, "ingester", -20*time.Hour, 4*time.Hour)
	late.Block, late.Key = 2, &cert.KeyFile{Path: "/etc/ingester/tls.key", Mode: 0o644, Fits: true}
	served := leaf(4, "storage", -time.Hour, 23*time.Hour)
	served.Kind, served.Place, served.Host = "endpoint", "storage:8010", "storage"
	served.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, CurveID: tls.X25519}
	half, err := cert.Parse(certtest.NegativeSerial(t, certtest.New(t, intermediate, "half", certtest.Dates(now.Add(-certtest.Day), now.Add(-time.Hour)), certtest.OddSerial)))
	accepted, wrong := audit.ParseBaseline("expiring /etc/accepted/tls.crt until=2026-04-01 # its renewal is planned\nweak-key /etc/gone.crt\n")
	certtest.Must(t, wrong)
	r, failed := audittest.Judge(t.Context(), audit.Config{
		Now: certtest.Doomsday, Baseline: accepted,
		Sources: []audit.Source{audittest.Static{
			late, served, leaf(5, "over", -20*certtest.Day, -certtest.Day), leaf(6, "soon", -340*certtest.Day, 25*certtest.Day), leaf(8, "accepted", -340*certtest.Day, 25*certtest.Day), leaf(7, `a "b", <c> & d`, -time.Hour, 23*time.Hour),
			{Kind: "file", Place: "/etc/half.crt", Cert: half, Err: err},
			{Kind: "endpoint", Place: "dead:443", Err: errors.New("no answer within 5s")},
			{Kind: "file", Place: "/a/ca.crt", Cert: certtest.Seen(root.Cert)}, {Kind: "file", Place: "/b/ca.crt", Cert: certtest.Seen(root.Cert)},
		}},
	})
	certtest.Must(t, failed)
	return r
}

// Formats for programs change on purpose only.
func TestGolden(t *testing.T) {
	r := everything(t)
	for _, format := range report.Formats() {
		if format == "html" || format == "pem" { // the one has a file of its own, the other is nothing but random
			continue
		}
		t.Run(format, func(t *testing.T) {
			var b bytes.Buffer
			certtest.Must(t, r.Render(format, &b, 100))
			golden(t, "report."+format, b.Bytes())
		})
	}
}

// The explanation of one place: chain, key, renewal and documents.
func TestGoldenInspect(t *testing.T) {
	now := certtest.Doomsday()
	decade := certtest.Dates(now.Add(-100*certtest.Day), now.Add(3650*certtest.Day))
	root := certtest.New(t, nil, "Test Root", certtest.Authority, decade, numbered(1))
	intermediate := certtest.New(t, root, "Test Intermediate", certtest.Authority, decade, numbered(2))
	leaf := certtest.New(t, intermediate, "ingester", certtest.Dates(now.Add(-18*time.Hour), now.Add(6*time.Hour)), numbered(3))
	dir := certtest.Write(t, map[string][]byte{
		"ca.crt": certtest.Encode(root), "tls.crt": certtest.Encode(leaf, intermediate), "tls.key": leaf.KeyPEM(t),
		"lone.crt": certtest.Encode(certtest.New(t, intermediate, "lone", certtest.Dates(now.Add(-certtest.Day), now.Add(300*certtest.Day)), numbered(4))),
		"token":    audittest.JWT(`{"alg":"ES256"}`, `{"sub":"svc","sans":["svc"],"iss":"enrol","nbf":1772366000,"exp":1772366300}`, "s"),
		"cut.crt":  certtest.Encode(root)[:100],
	})
	r := &audittest.Report{}
	here, err := os.Getwd()
	certtest.Must(t, err)
	t.Chdir(dir)
	_, err = audit.Run(t.Context(), audit.Config{Now: certtest.Doomsday, Report: r, Sources: []audit.Source{source.Targets{Names: []string{"."}, Documents: true}}})
	t.Chdir(here)
	certtest.Must(t, err)
	r.Sort()
	for format, name := range map[string]string{"text": "inspect.text", "json": "inspect.json"} {
		var b bytes.Buffer
		certtest.Must(t, r.Render(format, &b, 0))
		golden(t, name, b.Bytes())
	}
}

// A table on a narrow terminal drops days before places, shows the common directory of all
// paths once, and breaks texts at words. No line is wider than the terminal.
func TestGoldenWidths(t *testing.T) {
	now := certtest.Doomsday()
	root := certtest.New(t, nil, "Test Root", certtest.Authority, certtest.Dates(now.Add(-100*certtest.Day), now.Add(3650*certtest.Day)), numbered(1))
	leaf := func(n int64, place string, left time.Duration) audit.Subject {
		p := certtest.New(t, root, "ingester-of-the-second-floor", certtest.Dates(now.Add(-20*time.Hour), now.Add(left)), numbered(n))
		return audit.Subject{Kind: "file", Place: place, Cert: certtest.Seen(p.Cert), Bundle: certtest.SeenAll([]*certtest.Pair{root})}
	}
	const deep = "/srv/artstore/secrets/production/services"
	late := leaf(2, deep+"/ingester/current/identity/tls.crt", 4*time.Hour)
	late.Block, late.Key = 2, &cert.KeyFile{Path: deep + "/ingester/current/identity/tls.key", Mode: 0o644, Fits: true}
	recorded := leaf(3, "state/ca: ingester", 23*time.Hour)
	recorded.Kind, recorded.Lineage = "record", true
	ca := audit.Subject{Kind: "file", Place: deep + "/ingester/current/ca.crt", Cert: certtest.Seen(root.Cert)}
	again := ca
	again.Place = deep + "/storage/ca.crt"
	r, err := audittest.Judge(t.Context(), audit.Config{
		Now: certtest.Doomsday, Clock: func() time.Time { return now.Add(-certtest.Day) },
		Sources: []audit.Source{audittest.Static{
			late, leaf(4, deep+"/storage/identity/tls.crt", 23*time.Hour), recorded, ca, again,
			{Kind: "endpoint", Place: "storage.production.example.org:8010", Err: errors.New("no answer within 5s")},
		}},
	})
	certtest.Must(t, err)
	for _, width := range []int{60, 80, 120} {
		var b bytes.Buffer
		certtest.Must(t, r.WriteTable(&b, width))
		golden(t, fmt.Sprintf("report.table%d", width), b.Bytes())
		for line := range strings.Lines(b.String()) {
			if n := runewidth.StringWidth(strings.TrimSuffix(line, "\n")); n > width {
				t.Errorf("%d columns of %d: %s", n, width, line)
			}
		}
	}
}

// The common directory is left out of the paths of lists and keys too.
func TestSharedDirectoryOfDocuments(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	dir := certtest.Write(t, map[string][]byte{
		"a-directory-with-a-long-name/ca.crt": certtest.Encode(root), "a-directory-with-a-long-name/tls.crt": certtest.Encode(certtest.New(t, root, "a")),
		"a-directory-with-a-long-name/a.crl":     certtest.Block("X509 CRL", audittest.CRL(t, root, -2*certtest.Day, -certtest.Day)),
		"a-directory-with-a-long-name/other.key": certtest.New(t, root, "b").KeyPEM(t),
	})
	var b strings.Builder
	certtest.Must(t, audittest.Run(t, audittest.Paths(dir)).WriteTable(&b, 80))
	for _, place := range []string{"  …/tls.crt\n", "  …/a.crl\n", "  …/other.key\n"} {
		if !strings.Contains(b.String(), place) {
			t.Errorf("no %q in\n%s", place, b.String())
		}
	}
}
