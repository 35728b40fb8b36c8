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
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/report"
	"github.com/artstore/artstore-pki/audit/source"
)

// uses sets key usages and extended key usages.
func uses(u x509.KeyUsage, extended ...x509.ExtKeyUsage) certtest.Spec {
	return func(c *x509.Certificate) { c.KeyUsage, c.ExtKeyUsage = u, extended }
}

func signedWith(a x509.SignatureAlgorithm) certtest.Spec {
	return func(c *x509.Certificate) { c.SignatureAlgorithm = a }
}

func TestStrengthAndUsage(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	certtest.Must(t, err)
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	certtest.Must(t, err)
	modulus := func(bits uint) *rsa.PublicKey { // nobody needs its private half here
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		return &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: 65537}
	}
	const server, client = x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	const mail = x509.ExtKeyUsageEmailProtection
	otherName := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte("\x30\x08\xa0\x06\x06\x01\x2a\xa0\x01\x05")}
	for _, c := range []struct {
		name  string
		spec  certtest.Spec
		kind  string
		state string
	}{
		{"ours", uses(x509.KeyUsageDigitalSignature, server, client), "endpoint", "OK"},
		{"RSA 2048", certtest.Holds(modulus(2048)), "", "OK"},
		{"RSA 2047", certtest.Holds(modulus(2047)), "", "CRIT weak-key"},
		{"P-224", certtest.Holds(p224.Public()), "", "CRIT weak-key"},
		{"Ed25519", certtest.Holds(edwards), "", "OK"},
		{"SHA-1", signedWith(x509.ECDSAWithSHA1), "", "CRIT weak-signature"},
		{"SHA-384", signedWith(x509.ECDSAWithSHA384), "", "OK"},
		{"no names", certtest.Named(), "", "WARN no-san"},
		{"no names, any use", func(c *x509.Certificate) { certtest.Named()(c); c.ExtKeyUsage = nil }, "", "WARN no-san"},
		{"no names, client", func(c *x509.Certificate) { certtest.Named()(c); uses(0, client)(c) }, "", "OK"},
		{"a name of another kind", func(c *x509.Certificate) {
			certtest.Named()(c)
			c.ExtraExtensions = append(c.ExtraExtensions, otherName)
		}, "", "OK"},
		{"a client's, served", uses(0, client), "endpoint", "CRIT wrong-usage"},
		{"a client's, on disk", uses(0, client), "file", "OK"},
		{"any, served", uses(0, x509.ExtKeyUsageAny), "endpoint", "CRIT not-interoperable"},
		{"may sign certificates", uses(x509.KeyUsageDigitalSignature|x509.KeyUsageCertSign, server), "", "WARN wrong-usage"},
		{"may not sign", uses(x509.KeyUsageKeyEncipherment, server), "", "WARN wrong-usage"},
		{"may not sign, for mail", uses(x509.KeyUsageKeyEncipherment, mail), "", "WARN wrong-usage"},
		{"authority that may not sign certificates", func(c *x509.Certificate) {
			certtest.Authority(c)
			c.KeyUsage = x509.KeyUsageCRLSign
		}, "", "CRIT wrong-usage"},
	} {
		p := certtest.New(t, root, "svc", c.spec)
		r := audittest.Run(t, audittest.Static{{Kind: c.kind, Place: "x", Cert: certtest.Seen(p.Cert)}})
		if got := audittest.States(t, r, "")["x"]; got != c.state {
			t.Errorf("%s: %s, want %s", c.name, got, c.state)
		}
	}
	old := certtest.New(t, nil, "Old Root", certtest.Authority, signedWith(x509.ECDSAWithSHA1))
	if got := audittest.States(t, audittest.Run(t, audittest.Static{{Place: "x", Cert: certtest.Seen(old.Cert)}}), "")["x"]; got != "OK" {
		t.Errorf("root signed with SHA-1: %s", got)
	}
	for version, want := range map[uint16]string{0: "OK", tls.VersionTLS12: "WARN tls-version", tls.VersionTLS13: "OK"} {
		s := audit.Subject{Place: "x", Cert: certtest.Seen(root.Cert), TLS: &tls.ConnectionState{Version: version}}
		if got := audittest.States(t, audittest.Run(t, audittest.Static{s}), "")["x"]; got != want {
			t.Errorf("version %x: %s, want %s", version, got, want)
		}
	}
}

func TestSameKey(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	one := certtest.New(t, root, "one")
	renewed := certtest.New(t, root, "one", certtest.Holds(one.Key.Public()))
	other := certtest.New(t, root, "other", certtest.Holds(one.Key.Public()))
	r := audittest.Run(t, audittest.Static{{Place: "a", Cert: certtest.Seen(one.Cert)}, {Place: "b", Cert: certtest.Seen(renewed.Cert)}, {Place: "root", Cert: certtest.Seen(root.Cert)}})
	audittest.Want(t, audittest.States(t, r, ""), map[string]string{"a": "OK", "b": "OK", "root": "OK"})
	r = audittest.Run(t, audittest.Static{{Place: "a", Cert: certtest.Seen(one.Cert)}, {Place: "b", Cert: certtest.Seen(renewed.Cert)}}, audittest.Static{{Kind: "record", Place: "c", Cert: certtest.Seen(other.Cert)}})
	// Rows are gone when they are written, so it is the second name that has the finding.
	audittest.Want(t, audittest.States(t, r, ""), map[string]string{"a": "OK", "b": "OK", "c": "WARN same-key"})
	if got := r.Rows[0].Findings[0].Text; got != "its key is also that of one in a" {
		t.Error(got)
	}
}

func TestChainOrder(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	lower := certtest.New(t, intermediate, "Lower Intermediate", certtest.Authority)
	deep := certtest.New(t, lower, "deep")
	stranger := certtest.New(t, nil, "Stranger Root", certtest.Authority)
	dir := certtest.Write(t, map[string][]byte{
		"fine.pem": certtest.Encode(deep, lower, intermediate, root), "first.pem": certtest.Encode(intermediate, leaf), "swapped.pem": certtest.Encode(deep, intermediate, lower),
		"extra.pem": certtest.Encode(leaf, intermediate, stranger, lower), "many.pem": certtest.Encode(intermediate, leaf, lower, deep),
		"keyed.pem": append(leaf.KeyPEM(t), certtest.Encode(leaf, intermediate)...), "cas.pem": certtest.Encode(root, lower, intermediate),
	})
	got := map[string]string{}
	for _, row := range audittest.Run(t, source.Targets{Names: []string{dir}, Bundle: certtest.Bundle([]*certtest.Pair{root})}).Rows {
		if row.Cert.X509().IsCA {
			continue
		}
		for _, f := range row.Findings {
			got[filepath.Base(row.Place)] += f.Check + ": " + f.Text
		}
	}
	audittest.Want(t, got, map[string]string{
		"first.pem":   "chain-order: the leaf is not first: Test Intermediate stands before it",
		"swapped.pem": "chain-order: the chain is out of order: Test Intermediate stands before Lower Intermediate",
		"extra.pem":   "chain-order: Lower Intermediate stands there and has issued none of the others",
	})
}

// Each check has a citation and a remedy, and no finding is worse than its check claims.
func TestChecks(t *testing.T) {
	var ids []string
	for _, c := range audit.Checks() {
		if c.Remedy == "" || c.Cites == "" || c.Severity < audit.Info || c.Severity > audit.Crit || slices.Contains(ids, c.Check) {
			t.Errorf("%+v", c)
		}
		ids = append(ids, c.Check)
	}
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	bad := certtest.New(t, root, "bad", certtest.Lives(2*certtest.Day, certtest.Day), certtest.Named(), signedWith(x509.ECDSAWithSHA1))
	s := audit.Subject{Place: "x", Cert: certtest.Seen(bad.Cert), Host: "elsewhere", Key: &cert.KeyFile{Path: "k", Mode: os.FileMode(0o644)}}
	for _, c := range []struct {
		only, disable []string
		want          string
	}{
		{nil, nil, "EXPIRED expired key-mismatch key-readable name-mismatch no-san weak-signature"},
		{[]string{"no-san", "key-readable"}, nil, "WARN key-readable no-san"},
		{nil, []string{"expired", "weak-signature"}, "CRIT key-mismatch key-readable name-mismatch no-san"},
		{[]string{"expired"}, []string{"expired"}, "OK"},
	} {
		r, err := audittest.Judge(t.Context(), audit.Config{Sources: []audit.Source{audittest.Static{s}}, Only: c.only, Disable: c.disable})
		certtest.Must(t, err)
		if got := audittest.States(t, r, "")["x"]; got != c.want {
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

// Run refuses a config with which it would panic later, or report no finding because a
// check is misspelt.
func TestRunRefuses(t *testing.T) {
	report, err := report.New("json", io.Discard, report.Terminal{})
	certtest.Must(t, err)
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
	const year = 365 * certtest.Day
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	for _, c := range []struct {
		left time.Duration // of a year
		cfg  audit.Config
		want string
	}{
		{40 * certtest.Day, audit.Config{}, "OK"},
		{40 * certtest.Day, audit.Config{WarnBefore: 50 * certtest.Day}, "WARN expiring"},
		{40 * certtest.Day, audit.Config{WarnShare: 0.2}, "WARN expiring"},
		{40 * certtest.Day, audit.Config{WarnBefore: 50 * certtest.Day, WarnShare: 0.1}, "OK"},
		{40 * certtest.Day, audit.Config{CritBefore: 41 * certtest.Day}, "CRIT expiring"},
		{6 * certtest.Day, audit.Config{CritShare: 0.01}, "WARN expiring"},
	} {
		leaf := certtest.New(t, root, "svc", certtest.Lives(year-c.left, year))
		c.cfg.Sources = []audit.Source{audittest.Static{{Place: "x", Cert: certtest.Seen(leaf.Cert)}}}
		r, err := audittest.Judge(t.Context(), c.cfg)
		certtest.Must(t, err)
		if got := audittest.States(t, r, "")["x"]; got != c.want {
			t.Errorf("%+v: %s", c.cfg, got)
		}
	}
}

// Servers compare the key with the first certificate of the file, and do not start if it
// does not fit.
func TestLeafNotFirstBesideItsKey(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	dir := certtest.Write(t, map[string][]byte{"ca.crt": certtest.Encode(root), "tls.crt": certtest.Encode(intermediate, leaf), "tls.key": leaf.KeyPEM(t)})
	audittest.Want(t, audittest.States(t, audittest.Run(t, audittest.Paths(dir)), dir), map[string]string{"ca.crt": "OK", "tls.crt": "OK", "tls.crt#2": "CRIT chain-order"})
}
