package audit_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
)

// random is what keys make different from run to run, in a width that stays.
var random = regexp.MustCompile(`[0-9a-f]{64}|[A-Za-z0-9+/]{43}=`)

// golden compares with a file below testdata, or writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	got = random.ReplaceAll(got, []byte("(random)"))
	if *update {
		must(t, os.WriteFile(path, got, 0o600))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("not what is in %s; go test ./audit -run %s -update writes it, and git diff shows it:\n%s", path, t.Name(), got)
	}
}

// numbered is a certificate whose serial number has a width that does not vary.
func numbered(n int64) spec {
	return func(c *x509.Certificate) { c.SerialNumber = new(big.Int).Add(big.NewInt(1<<60), big.NewInt(n)) }
}

// doomsday is when everything golden is judged.
func doomsday() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// everything is a report that has something in every field that a format shows.
func everything(t *testing.T) *report {
	t.Helper()
	now := doomsday()
	decade := dates(now.Add(-100*day), now.Add(3650*day))
	root := newPair(t, nil, "Test Root", authority, decade, numbered(1))
	intermediate := newPair(t, root, "Test Intermediate", authority, decade, numbered(2))
	leaf := func(n int64, cn string, from, to time.Duration) audit.Subject {
		p := newPair(t, intermediate, cn, dates(now.Add(from), now.Add(to)), numbered(n))
		return audit.Subject{
			Kind: "file", Place: "/etc/" + cn + "/tls.crt", Cert: seen(p.cert),
			Chain: seenAll([]*pair{intermediate}), Bundle: seenAll([]*pair{root}),
		}
	}
	late := leaf(3, "ingester", -20*time.Hour, 4*time.Hour)
	late.Block, late.Key = 2, &audit.KeyFile{Path: "/etc/ingester/tls.key", Mode: 0o644, Fits: true}
	served := leaf(4, "storage", -time.Hour, 23*time.Hour)
	served.Kind, served.Place, served.Host = "endpoint", "storage:8010", "storage"
	served.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, CurveID: tls.X25519}
	half, err := audit.ParseCertificate(negative(t, newPair(t, intermediate, "half", dates(now.Add(-day), now.Add(-time.Hour)), odd)))
	accepted, wrong := audit.ParseBaseline("expiring /etc/accepted/tls.crt until=2026-04-01 # its renewal is planned\nweak-key /etc/gone.crt\n")
	must(t, wrong)
	r, failed := judged(t.Context(), audit.Config{
		Now: doomsday, Baseline: accepted,
		Sources: []audit.Source{static{
			late, served, leaf(5, "over", -20*day, -day), leaf(6, "soon", -340*day, 25*day), leaf(8, "accepted", -340*day, 25*day), leaf(7, `a "b", <c> & d`, -time.Hour, 23*time.Hour),
			{Kind: "file", Place: "/etc/half.crt", Cert: half, Err: err},
			{Kind: "endpoint", Place: "dead:443", Err: errors.New("no answer within 5s")},
			{Kind: "file", Place: "/a/ca.crt", Cert: seen(root.cert)}, {Kind: "file", Place: "/b/ca.crt", Cert: seen(root.cert)},
		}},
	})
	must(t, failed)
	return r
}

// What programs parse changes only on purpose.
func TestGolden(t *testing.T) {
	r := everything(t)
	for _, format := range audit.Formats() {
		if format == "html" || format == "pem" { // the one has a file of its own, the other is nothing but random
			continue
		}
		t.Run(format, func(t *testing.T) {
			var b bytes.Buffer
			must(t, r.render(format, &b, 100))
			golden(t, "report."+format, b.Bytes())
		})
	}
}

// What inspect says of one place: chain, key, renewal, and what is no certificate.
func TestGoldenInspect(t *testing.T) {
	now := doomsday()
	decade := dates(now.Add(-100*day), now.Add(3650*day))
	root := newPair(t, nil, "Test Root", authority, decade, numbered(1))
	intermediate := newPair(t, root, "Test Intermediate", authority, decade, numbered(2))
	leaf := newPair(t, intermediate, "ingester", dates(now.Add(-18*time.Hour), now.Add(6*time.Hour)), numbered(3))
	dir := write(t, map[string][]byte{
		"ca.crt": encode(root), "tls.crt": encode(leaf, intermediate), "tls.key": leaf.keyPEM(t),
		"lone.crt": encode(newPair(t, intermediate, "lone", dates(now.Add(-day), now.Add(300*day)), numbered(4))),
		"token":    jwt(`{"alg":"ES256"}`, `{"sub":"svc","sans":["svc"],"iss":"enrol","nbf":1772366000,"exp":1772366300}`, "s"),
		"cut.crt":  encode(root)[:100],
	})
	r := &report{}
	here, err := os.Getwd()
	must(t, err)
	t.Chdir(dir)
	_, err = audit.Run(t.Context(), audit.Config{Now: doomsday, Report: r, Sources: []audit.Source{audit.Targets{Names: []string{"."}, Documents: true}}})
	t.Chdir(here)
	must(t, err)
	slices.SortStableFunc(r.Rows, audit.WorstFirst)
	for format, name := range map[string]string{"text": "inspect.text", "json": "inspect.json"} {
		var b bytes.Buffer
		must(t, r.render(format, &b, 0))
		golden(t, name, b.Bytes())
	}
}
