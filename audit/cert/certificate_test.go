package cert_test

import (
	"crypto/dsa" //nolint:staticcheck // SA1019: to name what nobody should use
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"testing"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/internal/testpki"
)

// The answers to the questions of checks follow from the extensions (RFC 5280 §4.2.1).
func TestQuestions(t *testing.T) {
	usages := func(u x509.KeyUsage) certtest.Spec { return func(c *x509.Certificate) { c.KeyUsage = u } }
	type answers struct{ mayIssue, forTLS, signingOnly, barsTLS, selfSigned bool }
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	for name, c := range map[string]struct {
		pair *certtest.Pair
		want answers
	}{
		"an authority":             {root, answers{mayIssue: true, signingOnly: true, barsTLS: true, selfSigned: true}},
		"one without key usages":   {certtest.New(t, root, "x", certtest.Authority, usages(0)), answers{mayIssue: true}},
		"one that may sign lists":  {certtest.New(t, root, "x", certtest.Authority, usages(x509.KeyUsageCRLSign)), answers{barsTLS: true}},
		"a leaf":                   {certtest.New(t, root, "x"), answers{forTLS: true}},
		"a leaf for signatures":    {certtest.New(t, root, "x", usages(x509.KeyUsageDigitalSignature)), answers{forTLS: true}},
		"a leaf that may sign all": {certtest.New(t, root, "x", usages(x509.KeyUsageCertSign)), answers{forTLS: true, signingOnly: true, barsTLS: true}},
		"a leaf for mail": {certtest.New(t, root, "x", func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}
		}), answers{}},
		"a leaf of its own":     {certtest.New(t, nil, "x"), answers{forTLS: true, selfSigned: true}},
		"its issuer's namesake": {certtest.New(t, root, "Test Root"), answers{forTLS: true}},
	} {
		got, err := cert.Parse(c.pair.Cert.Raw)
		certtest.Must(t, err)
		if a := (answers{got.MayIssue(), got.ForTLS(), got.ForSigningOnly(), got.BarsTLS(), got.SelfSigned()}); a != c.want {
			t.Errorf("%s: %+v, want %+v", name, a, c.want)
		}
	}
}

// A key is named by its algorithm and size, and a long one of RSA is not computed with.
func TestKeyKinds(t *testing.T) {
	of := func(bits uint) *rsa.PublicKey {
		return &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), bits-1), E: 65537}
	}
	for want, c := range map[string]struct {
		key  any
		long bool
	}{
		"RSA 2048": {of(2048), false}, "RSA 8192": {of(8192), false}, "RSA 8193": {of(8193), true},
		"ECDSA P-256": {testpki.Key(t).Public(), false}, "Ed25519": {ed25519.PublicKey{}, false}, "DSA": {&dsa.PublicKey{}, false},
	} {
		kind := cert.KeyKindOf(&x509.Certificate{PublicKey: c.key})
		if kind.String() != want || kind.Oversized() != c.long {
			t.Errorf("%s, too long: %t; want %s, %t", kind, kind.Oversized(), want, c.long)
		}
	}
}

// The issuer is the authority whose key has signed, not one that only has its name.
func TestIssuerIn(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	namesake := certtest.New(t, nil, "Test Intermediate", certtest.Authority)
	c := certtest.Seen(leaf.Cert)
	all := certtest.SeenAll([]*certtest.Pair{root, namesake, intermediate})
	if got := c.IssuerIn(all); got == nil || !got.X509().Equal(intermediate.Cert) || !got.In(all) || c.In(all) {
		t.Errorf("the issuer is %+v", got)
	}
	if got := c.IssuerIn(all[:2]); got != nil {
		t.Errorf("without the intermediate, the issuer is %s", got.Name)
	}
	if got := cert.X509s(append(all, cert.ParsePartial(certtest.NegativeSerial(t, certtest.New(t, root, "x", certtest.OddSerial))))); len(got) != len(all) {
		t.Errorf("%d certificates to verify with, want %d", len(got), len(all))
	}
}

// The cache returns one certificate for equal ones of an authority, and does not keep leaves.
func TestCache(t *testing.T) {
	root, _, leaf := certtest.Hierarchy(t)
	var known cert.Cache
	parse := func(p *certtest.Pair) *cert.Certificate {
		c, err := known.Parse(p.Cert.Raw)
		certtest.Must(t, err)
		return c
	}
	first := parse(root)
	if again := parse(root); again != first || known.Canonical(certtest.Seen(root.Cert)) != first {
		t.Error("the root is there twice")
	}
	if first, again := parse(leaf), parse(leaf); first == again {
		t.Error("a leaf is kept")
	}
}

// A key that others may read is exposed, unless a password protects it.
func TestKeyFile(t *testing.T) {
	for _, c := range []struct {
		key  cert.KeyFile
		want string
	}{
		{cert.KeyFile{Path: "/a", Mode: 0o600}, ""},
		{cert.KeyFile{Path: "/a", Mode: 0o644}, "/a has mode 0644"},
		{cert.KeyFile{Path: "/a", Mode: 0o640}, "/a has mode 0640"},
		{cert.KeyFile{Path: "/a", Mode: 0o640, OfRoot: true}, ""}, // root gave it to the group (docs/design/0020)
		{cert.KeyFile{Path: "/a", Mode: 0o644, Locked: true}, ""},
	} {
		k := c.key
		if got := k.Exposed(); got != c.want {
			t.Errorf("%+v: %q, want %q", k, got, c.want)
		}
		if locked := k.WhyOpaque() == "it is encrypted"; locked != k.Locked {
			t.Errorf("%+v: %s", k, k.WhyOpaque())
		}
	}
}
