package openssl_test

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"slices"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit/internal/openssl"
	"github.com/artstore/artstore-pki/internal/testpki"
)

// What OpenSSL itself says to each of these cases, and to more, is compared in
// audit/verdicts_test.go.

var now = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

type pair struct {
	*x509.Certificate
	key crypto.Signer
}

func issue(t testing.TB, issuer *pair, name string, change func(*x509.Certificate)) *pair {
	t.Helper()
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(1, 0, 0), BasicConstraintsValid: true, IsCA: true,
	}
	if change != nil {
		change(c)
	}
	var by *testpki.Pair
	if issuer != nil {
		by = &testpki.Pair{Cert: issuer.Certificate, Key: issuer.key}
	}
	made := testpki.Issue(t, by, c, nil)
	return &pair{made.Cert, made.Key}
}

func TestPath(t *testing.T) {
	keyOf := func(p *pair) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.SubjectKeyId = p.SubjectKeyId }
	}
	root, stranger := issue(t, nil, "Root", nil), issue(t, nil, "Stranger", nil)
	mid := issue(t, root, "Mid", nil)
	cross := issue(t, stranger, "Mid", keyOf(mid))
	expired := issue(t, root, "Mid", func(c *x509.Certificate) { c.SubjectKeyId, c.NotAfter = mid.SubjectKeyId, now.AddDate(0, -1, 0) })
	other := issue(t, root, "Mid", nil)
	leaf := issue(t, mid, "leaf", nil)
	twin := issue(t, nil, "Root", keyOf(root))
	a, b := issue(t, nil, "A", nil), issue(t, nil, "B", nil)
	circle := []*pair{issue(t, b, "A", keyOf(a)), issue(t, a, "B", keyOf(b))}
	for _, c := range []struct {
		name          string
		leaf          *pair
		sent, trusted []*pair
		path          []*pair // behind the leaf
		end           openssl.End
	}{
		{"sound", leaf, []*pair{mid}, []*pair{root}, []*pair{mid, root}, openssl.Rooted},
		{"the bundle goes first", leaf, []*pair{cross}, []*pair{mid, root}, []*pair{mid, root}, openssl.Rooted},
		{"cross-signed first", leaf, []*pair{cross, mid}, []*pair{root}, []*pair{cross}, openssl.Astray},
		{"the valid one", leaf, []*pair{expired, mid}, []*pair{root}, []*pair{mid, root}, openssl.Rooted},
		{"the one with the right key identifier", leaf, []*pair{other, mid}, []*pair{root}, []*pair{mid, root}, openssl.Rooted},
		{"no root", leaf, []*pair{mid}, []*pair{mid}, []*pair{mid}, openssl.Astray},
		{"two roots that nothing tells apart", leaf, []*pair{mid}, []*pair{root, twin}, []*pair{mid, root}, openssl.Ambiguous},
		{"a root of its own", root, nil, []*pair{root}, nil, openssl.Rooted},
		{"a stranger of its own", stranger, nil, []*pair{root}, nil, openssl.Astray},
		{"a circle", issue(t, a, "leaf", nil), circle, []*pair{root}, circle, openssl.Astray},
	} {
		path, end := openssl.Path(c.leaf.Certificate, openssl.Given{Sent: index(c.sent), Trusted: index(c.trusted), Now: now})
		want := slices.Insert(slices.Clone(c.path), 0, c.leaf)
		if end != c.end || !slices.EqualFunc(path, want, func(x *x509.Certificate, y *pair) bool { return x.Equal(y.Certificate) }) {
			t.Errorf("%s: %d certificates, end %d; want %d, %d", c.name, len(path), end, len(want), c.end)
		}
	}
}

func index(list []*pair) openssl.Index {
	var out []*x509.Certificate
	for _, p := range list {
		out = append(out, p.Certificate)
	}
	return openssl.NewIndex(out)
}

// The parts that are read anew come from certificates that anybody may have made.
func FuzzCertificate(f *testing.F) {
	f.Add(issue(f, nil, "Root", func(c *x509.Certificate) {
		c.PermittedDNSDomains = []string{"test"}
		c.ExtraExtensions = []pkix.Extension{
			{Id: []int{2, 16, 840, 1, 113730, 1, 1}, Value: []byte{3, 2, 7, 0x80}},
			{Id: []int{2, 5, 29, 35}, Value: []byte{0x30, 3, 0x82, 1, 1}},
			{Id: []int{1, 3, 6, 1, 5, 5, 7, 1, 7}, Value: []byte{0x30, 0}},
		}
	}).Raw)
	f.Add(issue(f, nil, "host.test", func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 30}, Value: []byte{0x30, 8, 0xa0, 6, 0x30, 4, 0xa4, 2, 0x30, 0}}}
	}).Raw)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := x509.ParseCertificate(data)
		if err != nil {
			return
		}
		openssl.Flaw(c)
		openssl.Bars(c, x509.ExtKeyUsageServerAuth)
		path, _ := openssl.Path(c, openssl.Given{Sent: openssl.NewIndex([]*x509.Certificate{c}), Now: now})
		openssl.Limit(append(path, c))
	})
}
