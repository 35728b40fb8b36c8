package audit_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
)

// common are leaves that are read without crypto/x509, uncommon are others.
func common(t testing.TB) (quick, other map[string]*pair) {
	t.Helper()
	root := newPair(t, nil, "Test Root", authority)
	modulus := new(big.Int).SetBit(new(big.Int).Lsh(big.NewInt(1), 2047), 0, 1)
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	uri, err := url.Parse("spiffe://a/b")
	must(t, err)
	extension := func(id ...int) spec {
		return func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier(id), Value: []byte{5, 0}})
		}
	}
	with := func(s spec) *pair { return newPair(t, root, "svc", s) }
	return map[string]*pair{
			"plain": with(named("a", "b.example")), "RSA": with(holds(&rsa.PublicKey{N: modulus, E: 65537})), "Ed25519": with(holds(edwards)), "P-384": with(holds(p384.Public())),
			"names": with(func(c *x509.Certificate) {
				c.EmailAddresses, c.IPAddresses = []string{"a@b"}, []net.IP{net.ParseIP("::1"), net.IPv4(10, 0, 0, 1)}
			}),
			"no common name": with(func(c *x509.Certificate) { c.Subject = pkix.Name{Organization: []string{"O"}} }),
			"usages":         with(uses(x509.KeyUsageDigitalSignature|x509.KeyUsageDecipherOnly, x509.ExtKeyUsageOCSPSigning, x509.ExtKeyUsageClientAuth)),
			"late":           with(dates(time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC), time.Date(2050, 2, 28, 0, 0, 0, 0, time.UTC))),
			"extension":      with(extension(1, 3, 6, 1, 4, 1, 37476, 9000, 64, 1)),
			"one":            with(func(c *x509.Certificate) { c.SerialNumber = big.NewInt(1) }),
		}, map[string]*pair{
			"authority": root, "URI": with(func(c *x509.Certificate) { c.URIs = []*url.URL{uri} }),
			"SHA-1": with(signedWith(x509.ECDSAWithSHA1)), "any usage": with(uses(0, x509.ExtKeyUsageAny)),
			"nobody":        with(func(c *x509.Certificate) { c.Subject = pkix.Name{}; named()(c) }),
			"other usage":   with(func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3}} }),
			"distributed":   with(func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"http://a/"} }),
			"large numbers": with(extension(1, 2, 1<<30)),
			"self-issued":   newPair(t, nil, "self"),
		}
}

func TestQuick(t *testing.T) {
	quick, other := common(t)
	for name, p := range quick {
		if got := audit.Quick(p.cert.Raw); got == "" || got != audit.Slow(p.cert) {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, audit.Slow(p.cert))
		}
	}
	for name, p := range other {
		if got := audit.Quick(p.cert.Raw); got != "" {
			t.Errorf("%s is taken: %s", name, got)
		}
	}
}

// Contract: whatever is read without crypto/x509 is the same with it.
func FuzzQuick(f *testing.F) {
	quick, other := common(f)
	for _, p := range quick {
		f.Add(p.cert.Raw)
		f.Add(append(bytes.Clone(p.cert.Raw), 0))
	}
	for _, p := range other {
		f.Add(p.cert.Raw)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got := audit.Quick(data)
		if got == "" {
			return
		}
		c, err := x509.ParseCertificate(data)
		if err != nil {
			t.Fatalf("taken: %v", err)
		}
		if want := audit.Slow(c); got != want {
			t.Errorf("%s\nwant\n%s", got, want)
		}
	})
}
