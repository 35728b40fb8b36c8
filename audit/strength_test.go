package audit_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/report"
	"github.com/artstore/artstore-pki/audit/source"
)

// uses sets key usages, and extended ones if there are any.
func uses(u x509.KeyUsage, extended ...x509.ExtKeyUsage) spec {
	return func(c *x509.Certificate) { c.KeyUsage, c.ExtKeyUsage = u, extended }
}

func signedWith(a x509.SignatureAlgorithm) spec {
	return func(c *x509.Certificate) { c.SignatureAlgorithm = a }
}

func TestStrengthAndUsage(t *testing.T) {
	root := newPair(t, nil, "Test Root", authority)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	must(t, err)
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	modulus := func(bits uint) *rsa.PublicKey { // nobody needs its private half here
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		return &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: 65537}
	}
	const server, client = x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	const mail = x509.ExtKeyUsageEmailProtection
	otherName := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte("\x30\x08\xa0\x06\x06\x01\x2a\xa0\x01\x05")}
	for _, c := range []struct {
		name  string
		spec  spec
		kind  string
		state string
	}{
		{"ours", uses(x509.KeyUsageDigitalSignature, server, client), "endpoint", "OK"},
		{"RSA 2048", holds(modulus(2048)), "", "OK"},
		{"RSA 2047", holds(modulus(2047)), "", "CRIT weak-key"},
		{"P-224", holds(p224.Public()), "", "CRIT weak-key"},
		{"Ed25519", holds(edwards), "", "OK"},
		{"SHA-1", signedWith(x509.ECDSAWithSHA1), "", "CRIT weak-signature"},
		{"SHA-384", signedWith(x509.ECDSAWithSHA384), "", "OK"},
		{"no names", named(), "", "WARN no-san"},
		{"no names, any use", func(c *x509.Certificate) { named()(c); c.ExtKeyUsage = nil }, "", "WARN no-san"},
		{"no names, client", func(c *x509.Certificate) { named()(c); uses(0, client)(c) }, "", "OK"},
		{"a name of another kind", func(c *x509.Certificate) {
			named()(c)
			c.ExtraExtensions = append(c.ExtraExtensions, otherName)
		}, "", "OK"},
		{"a client's, served", uses(0, client), "endpoint", "CRIT wrong-usage"},
		{"a client's, on disk", uses(0, client), "file", "OK"},
		{"any, served", uses(0, x509.ExtKeyUsageAny), "endpoint", "CRIT not-interoperable"},
		{"may sign certificates", uses(x509.KeyUsageDigitalSignature|x509.KeyUsageCertSign, server), "", "WARN wrong-usage"},
		{"may not sign", uses(x509.KeyUsageKeyEncipherment, server), "", "WARN wrong-usage"},
		{"may not sign, for mail", uses(x509.KeyUsageKeyEncipherment, mail), "", "WARN wrong-usage"},
		{"authority that may not sign certificates", func(c *x509.Certificate) {
			authority(c)
			c.KeyUsage = x509.KeyUsageCRLSign
		}, "", "CRIT wrong-usage"},
	} {
		p := newPair(t, root, "svc", c.spec)
		r := run(t, static{{Kind: c.kind, Place: "x", Cert: seen(p.cert)}})
		if got := states(t, r, "")["x"]; got != c.state {
			t.Errorf("%s: %s, want %s", c.name, got, c.state)
		}
	}
	old := newPair(t, nil, "Old Root", authority, signedWith(x509.ECDSAWithSHA1))
	if got := states(t, run(t, static{{Place: "x", Cert: seen(old.cert)}}), "")["x"]; got != "OK" {
		t.Errorf("root signed with SHA-1: %s", got)
	}
	for version, want := range map[uint16]string{0: "OK", tls.VersionTLS12: "WARN tls-version", tls.VersionTLS13: "OK"} {
		s := audit.Subject{Place: "x", Cert: seen(root.cert), TLS: &tls.ConnectionState{Version: version}}
		if got := states(t, run(t, static{s}), "")["x"]; got != want {
			t.Errorf("version %x: %s, want %s", version, got, want)
		}
	}
}

func TestSameKey(t *testing.T) {
	root := newPair(t, nil, "Test Root", authority)
	one := newPair(t, root, "one")
	renewed := newPair(t, root, "one", holds(one.key.Public()))
	other := newPair(t, root, "other", holds(one.key.Public()))
	r := run(t, static{{Place: "a", Cert: seen(one.cert)}, {Place: "b", Cert: seen(renewed.cert)}, {Place: "root", Cert: seen(root.cert)}})
	want(t, states(t, r, ""), map[string]string{"a": "OK", "b": "OK", "root": "OK"})
	r = run(t, static{{Place: "a", Cert: seen(one.cert)}, {Place: "b", Cert: seen(renewed.cert)}}, static{{Kind: "record", Place: "c", Cert: seen(other.cert)}})
	// Rows are gone when they are written, so it is the second name that has the finding.
	want(t, states(t, r, ""), map[string]string{"a": "OK", "b": "OK", "c": "WARN same-key"})
	if got := r.Rows[0].Findings[0].Text; got != "its key is also that of one in a" {
		t.Error(got)
	}
}

func TestChainOrder(t *testing.T) {
	root, intermediate, leaf := hierarchy(t)
	lower := newPair(t, intermediate, "Lower Intermediate", authority)
	deep := newPair(t, lower, "deep")
	stranger := newPair(t, nil, "Stranger Root", authority)
	dir := write(t, map[string][]byte{
		"fine.pem": encode(deep, lower, intermediate, root), "first.pem": encode(intermediate, leaf), "swapped.pem": encode(deep, intermediate, lower),
		"extra.pem": encode(leaf, intermediate, stranger, lower), "many.pem": encode(intermediate, leaf, lower, deep),
		"keyed.pem": append(leaf.keyPEM(t), encode(leaf, intermediate)...), "cas.pem": encode(root, lower, intermediate),
	})
	got := map[string]string{}
	for _, row := range run(t, source.Targets{Names: []string{dir}, Bundle: bundleOf([]*pair{root})}).Rows {
		if row.Cert.X509().IsCA {
			continue
		}
		for _, f := range row.Findings {
			got[filepath.Base(row.Place)] += f.Check + ": " + f.Text
		}
	}
	want(t, got, map[string]string{
		"first.pem":   "chain-order: the leaf is not first: Test Intermediate stands before it",
		"swapped.pem": "chain-order: the chain is out of order: Test Intermediate stands before Lower Intermediate",
		"extra.pem":   "chain-order: Lower Intermediate stands there and has issued none of the others",
	})
}

// Every check says what it cites and what to do, and none is worse than it claims.
func TestChecks(t *testing.T) {
	var ids []string
	for _, c := range audit.Checks() {
		if c.Remedy == "" || c.Cites == "" || c.Severity < audit.Info || c.Severity > audit.Crit || slices.Contains(ids, c.Check) {
			t.Errorf("%+v", c)
		}
		ids = append(ids, c.Check)
	}
	root := newPair(t, nil, "Test Root", authority)
	bad := newPair(t, root, "bad", lives(2*Day, Day), named(), signedWith(x509.ECDSAWithSHA1))
	s := audit.Subject{Place: "x", Cert: seen(bad.cert), Host: "elsewhere", Key: &cert.KeyFile{Path: "k", Mode: os.FileMode(0o644)}}
	for _, c := range []struct {
		only, disable []string
		want          string
	}{
		{nil, nil, "EXPIRED expired key-mismatch key-readable name-mismatch no-san weak-signature"},
		{[]string{"no-san", "key-readable"}, nil, "WARN key-readable no-san"},
		{nil, []string{"expired", "weak-signature"}, "CRIT key-mismatch key-readable name-mismatch no-san"},
		{[]string{"expired"}, []string{"expired"}, "OK"},
	} {
		r, err := judged(t.Context(), audit.Config{Sources: []audit.Source{static{s}}, Only: c.only, Disable: c.disable})
		must(t, err)
		if got := states(t, r, "")["x"]; got != c.want {
			t.Errorf("%v %v: %s, want %s", c.only, c.disable, got, c.want)
		}
		for _, f := range r.Rows[0].Findings {
			i := slices.Index(ids, f.Check)
			if i < 0 || f.Severity > audit.Checks()[i].Severity {
				t.Errorf("%+v", f)
			}
		}
	}
}

// Run refuses what would be a panic later, or a report that is green for nothing.
func TestRunRefuses(t *testing.T) {
	report, err := report.New("json", io.Discard, report.Terminal{})
	must(t, err)
	for _, c := range []struct {
		cfg  audit.Config
		want string
	}{
		{audit.Config{}, "there is no Report"},
		{audit.Config{Report: report, Only: []string{"expierd"}}, `no check "expierd"`},
		{audit.Config{Report: report, Disable: []string{"nonsense"}}, `no check "nonsense"`},
	} {
		if _, err := audit.Run(t.Context(), c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}

func TestThresholds(t *testing.T) {
	const year = 365 * Day
	root := newPair(t, nil, "Test Root", authority)
	for _, c := range []struct {
		left time.Duration // of a year
		cfg  audit.Config
		want string
	}{
		{40 * Day, audit.Config{}, "OK"},
		{40 * Day, audit.Config{WarnBefore: 50 * Day}, "WARN expiring"},
		{40 * Day, audit.Config{WarnShare: 0.2}, "WARN expiring"},
		{40 * Day, audit.Config{WarnBefore: 50 * Day, WarnShare: 0.1}, "OK"},
		{40 * Day, audit.Config{CritBefore: 41 * Day}, "CRIT expiring"},
		{6 * Day, audit.Config{CritShare: 0.01}, "WARN expiring"},
	} {
		leaf := newPair(t, root, "svc", lives(year-c.left, year))
		c.cfg.Sources = []audit.Source{static{{Place: "x", Cert: seen(leaf.cert)}}}
		r, err := judged(t.Context(), c.cfg)
		must(t, err)
		if got := states(t, r, "")["x"]; got != c.want {
			t.Errorf("%+v: %s", c.cfg, got)
		}
	}
}

// Servers compare the key with the first certificate, and do not start with another one.
func TestLeafNotFirstBesideItsKey(t *testing.T) {
	root, intermediate, leaf := hierarchy(t)
	dir := write(t, map[string][]byte{"ca.crt": encode(root), "tls.crt": encode(intermediate, leaf), "tls.key": leaf.keyPEM(t)})
	want(t, states(t, run(t, paths(dir)), dir), map[string]string{"ca.crt": "OK", "tls.crt": "OK", "tls.crt#2": "CRIT chain-order"})
}
