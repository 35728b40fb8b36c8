package main

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/source"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/settings"
	"github.com/artstore/artstore-pki/internal/testpki"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
)

// setPKI makes the sets of the table below.
type setPKI struct {
	t                  *testing.T
	root, inter, other *testpki.Pair
}

func newSetPKI(t *testing.T) *setPKI {
	root := testpki.Root(t, "root")
	return &setPKI{t, root, root.Intermediate(t, "intermediate"), root.Intermediate(t, "intermediate")} // the same name, an older key
}

// leaf makes a certificate of the intermediate for a key. It lives 90 days, because
// the audit below reports what ends within the hour.
func (p *setPKI) leaf(key crypto.Signer, usages ...x509.ExtKeyUsage) *x509.Certificate {
	return testpki.Issue(p.t, p.inter, &x509.Certificate{
		Subject: pkix.Name{CommonName: "svc"}, DNSNames: []string{"svc"}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usages,
		NotAfter: time.Now().Add(90 * 24 * time.Hour),
	}, key).Cert
}

// certSet is the content of a directory, without the trust bundle.
type certSet struct {
	cert, key []byte
	mode      os.FileMode
}

// set has a new leaf, in front of chain, and its key.
func (p *setPKI) set(chain ...*testpki.Pair) certSet {
	key := testpki.Key(p.t)
	list := []*x509.Certificate{p.leaf(key, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth)}
	for _, c := range chain {
		list = append(list, c.Cert)
	}
	data, err := pemfile.EncodePrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	return certSet{pemfile.EncodeCertificates(list), data, 0o600}
}

// with has a leaf of the usages for key, which is in a PEM block of the label.
func (p *setPKI) with(key crypto.Signer, label string, usages ...x509.ExtKeyUsage) certSet {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	return certSet{
		pemfile.EncodeCertificates([]*x509.Certificate{p.leaf(key, usages...), p.inter.Cert}),
		pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}), 0o600,
	}
}

// under is a set below an intermediate that permits the usages.
func (p *setPKI) under(permits []x509.ExtKeyUsage) certSet {
	narrow := *p
	narrow.inter = p.root.Intermediate(p.t, "Narrow", func(c *x509.Certificate) { c.ExtKeyUsage = permits })
	return narrow.with(testpki.Key(p.t), "PRIVATE KEY", x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth)
}

// TestOneSetThreeAnswers compares what a running service, "config check" and "audit" say about
// the same files. Where they differ, the row says why.
func TestOneSetThreeAnswers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	p := newSetPKI(t)
	rsaKey := func(bits int) crypto.Signer {
		t.Setenv("GODEBUG", "rsa1024min=0")
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	both := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	whole := p.set(p.inter)
	comment := whole
	comment.cert = bytes.Replace(whole.cert, []byte("-----END CERTIFICATE-----\n"), []byte("-----END CERTIFICATE-----\n# ----- intermediate -----\n"), 1)
	readable := whole
	readable.mode = 0o644
	torn := whole
	torn.cert = whole.cert[:len(whole.cert)-200]
	encrypted := whole
	encrypted.key = pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{0x30, 0}})
	mismatch := whole
	mismatch.key = p.set().key
	twice, reversed := p.set(), p.set()
	twice.cert = slices.Concat(twice.cert, twice.cert, pemfile.EncodeCertificates([]*x509.Certificate{p.inter.Cert}))
	reversed.cert = append(pemfile.EncodeCertificates([]*x509.Certificate{p.inter.Cert}), reversed.cert...)
	for _, c := range []struct {
		name   string
		set    certSet
		rotate string // "" taken, "warns: TEXT" taken with a warning, else a part of the refusal
		check  string // "" or a part of the refusal of config check
		audit  string // ids of the findings
		why    string // the answers differ
	}{
		{"whole", whole, "", "", "", ""},
		{"with the root", p.set(p.inter, p.root), "", "", "", ""},
		{"comment with dashes", comment, "", "", "", ""},
		{"PKCS #8 under RSA PRIVATE KEY", p.with(rsaKey(2048), "RSA PRIVATE KEY", both...), "", "", "", ""},
		{"PKCS #8 under EC PRIVATE KEY", p.with(testpki.Key(t), "EC PRIVATE KEY", both...), "", "", "", ""},
		{"no extended key usages", p.with(testpki.Key(t), "PRIVATE KEY"), "", "", "", ""},
		{"server only", p.with(testpki.Key(t), "PRIVATE KEY", both[1]), "", "lacks clientAuth", "",
			"the client of config check connects to others; a service may serve only, and is refused when it begins to connect"},
		{"surplus certificate", p.set(p.inter, p.other), "warns: not part of the chain", "", "chain-order",
			"peers get the chain without it, so there is nothing for config check to refuse"},
		{"surplus certificate between", p.set(p.other, p.inter), "warns: not part of the chain", "", "chain-order",
			"as above"},
		{"the intermediate twice", p.set(p.inter, p.inter), "warns: not part of the chain", "", "chain-order", "as above"},
		{"the leaf twice", twice, "warns: not part of the chain", "", "chain-order", "as above"},
		{"the leaf is not first", reversed, "does not fit the first certificate", "does not fit", "chain-order", ""},
		{"an intermediate for clients", p.under(both[:1]), "warns: does not permit all", "", "chain-invalid",
			"config check verifies no chain"},
		{"an intermediate for mail", p.under([]x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}), "permits neither clientAuth nor serverAuth", "", "chain-invalid",
			"as above"},
		{"a leaf for mail", p.with(testpki.Key(t), "PRIVATE KEY", x509.ExtKeyUsageEmailProtection), "neither clientAuth nor serverAuth", "lacks clientAuth", "wrong-usage", ""},
		{"weak key", p.with(rsaKey(1024), "PRIVATE KEY", both...), "warns: RSA key of 1024 bits", "", "weak-key",
			"a running service must not fail for it; config check asks whether the program can run; audit is there to judge it"},
		{"key that others can read", readable, "warns: others can read the private key", "lets others read the key", "key-readable",
			"refusing a renewal would be an outage, refusing a start is not"},
		{"chain cut between two blocks", p.set(), "neither in the chain nor in the trust bundle", "", "chain-incomplete",
			"config check judges the files one by one and verifies no chain"},
		{"chain of another key", p.set(p.other), "neither in the chain nor in the trust bundle", "", "chain-incomplete", "as above"},
		{"torn", torn, "damaged PEM", "damaged PEM", "chain-incomplete unreadable",
			"audit says what it can of the part that is whole, beside that there is damage"},
		{"encrypted key", encrypted, "it is an encrypted private key", "it is an encrypted private key", "",
			"audit needs no key to judge a certificate"},
		{"key of another", mismatch, "does not fit", "does not fit", "key-mismatch", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, data := range map[string][]byte{"tls.crt": c.set.cert, "ca.crt": pemfile.EncodeCertificates([]*x509.Certificate{p.root.Cert})} {
				writeSet(t, filepath.Join(dir, name), data, 0o644)
			}
			writeSet(t, filepath.Join(dir, "tls.key"), c.set.key, c.set.mode)
			if got := askRotation(t, dir); (c.rotate == "") != (got == "") || !strings.Contains(got, c.rotate[strings.Index(c.rotate, ":")+1:]) ||
				strings.HasPrefix(got, "warns") != strings.HasPrefix(c.rotate, "warns") {
				t.Errorf("rotation: %q, want %q", got, c.rotate)
			}
			if got := askSettings(dir); (c.check == "") != (got == "") || !strings.Contains(got, c.check) {
				t.Errorf("config check: %q, want %q", got, c.check)
			}
			if got := askAudit(t, dir); got != c.audit {
				t.Errorf("audit: %q, want %q", got, c.audit)
			}
		})
	}
}

func writeSet(t *testing.T, path string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
}

func askRotation(t *testing.T, dir string) string {
	id, err := rotation.Open(t.Context(), rotation.Config{
		Source: files.Source(files.Set{Dir: dir}), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err.Error()
	}
	defer func() { _ = id.Close() }()
	if w := id.Status().Warnings; len(w) > 0 {
		return "warns: " + strings.Join(w, "; ")
	}
	return ""
}

func askSettings(dir string) string {
	_, err := settings.Collect(settings.Input{Environ: []string{
		"STORAGE_ELEMENT__BASE_URL=https://s", "SERVICE_ACCOUNT__CLIENT_ID=x", "SERVICE_ACCOUNT__CLIENT_SECRET=x",
		"TLS__CERT_FILE=" + filepath.Join(dir, "tls.crt"), "TLS__KEY_FILE=" + filepath.Join(dir, "tls.key"), "TLS__CA_CERT_FILE=" + filepath.Join(dir, "ca.crt"),
	}}).Parse()
	if err != nil {
		return err.Error()
	}
	return ""
}

// findings is a report that keeps the ids of what is wrong with tls.crt.
type findings []string

func (f *findings) Row(r *audit.Row) error {
	if r.Cert == nil && r.Err != nil && strings.HasSuffix(r.Place, "tls.crt") {
		*f = append(*f, "unreadable")
	}
	for _, found := range r.Findings {
		if found.Severity > audit.Info && strings.HasSuffix(r.Place, "tls.crt") {
			*f = append(*f, found.Check)
		}
	}
	return nil
}

func (f *findings) End(*audit.Summary) error { return nil }

func askAudit(t *testing.T, dir string) string {
	var f findings
	_, err := audit.Run(t.Context(), audit.Config{Sources: []audit.Source{source.Targets{Names: []string{dir}}}, Report: &f, WarnBefore: time.Hour, CritBefore: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(f)
	return strings.Join(slices.Compact(f), " ")
}
