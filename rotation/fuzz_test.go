package rotation_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/testpki"
	"github.com/artstore/artstore-pki/rotation"
)

// FuzzCandidate uses any bytes as the certificate files of a set whose key is good. The
// gate must not panic. If it accepts a candidate, the leaf fits the key, each
// certificate of the chain is signed by the next, and the bundle is not empty.
func FuzzCandidate(f *testing.F) {
	// The same bytes in every process, or the workers would refuse each other's corpus.
	keys := make([]ed25519.PrivateKey, 3)
	for i := range keys {
		keys[i] = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i)}, ed25519.SeedSize))
	}
	rootPair := fixed(f, "root", nil, keys[0])
	interPair := fixed(f, "intermediate", rootPair, keys[1])
	leafPair := fixed(f, "leaf", interPair, keys[2])
	leaf, inter, root := leafPair.Cert.Raw, interPair.Cert.Raw, rootPair.Cert.Raw
	f.Add(leaf, inter)
	f.Add(leaf, root)
	f.Add(inter, leaf)
	f.Add(leaf, []byte{})
	f.Add(leaf[:len(leaf)-1], inter)
	f.Add([]byte{0x30, 0x80}, inter)
	f.Fuzz(func(t *testing.T, one, two []byte) {
		c := rotation.Material{Roots: []*x509.Certificate{rootPair.Cert}, Certificate: tls.Certificate{
			Certificate: [][]byte{one, two}, PrivateKey: keys[2],
		}}
		// The gate alone: goroutines would make the coverage, and so the search, random.
		g, err := rotation.Examine(c)
		if err != nil {
			return
		}
		chain := g.Chain()
		for i := 1; i < len(chain); i++ {
			if err := chain[i-1].CheckSignatureFrom(chain[i]); err != nil {
				t.Errorf("passed a chain with a gap: %v", err)
			}
		}
		if !certs.Fits(g.Leaf(), keys[2]) || len(g.Roots()) == 0 || !time.Now().Before(g.Leaf().NotAfter) {
			t.Error("passed what no peer accepts")
		}
	})
}

// fixed makes a certificate of which every byte is determined. Without an issuer it is
// self-signed.
func fixed(f *testing.F, name string, issuer *testpki.Pair, key ed25519.PrivateKey) *testpki.Pair {
	f.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	if name != "leaf" {
		tmpl.IsCA, tmpl.KeyUsage = true, x509.KeyUsageCertSign
	}
	return testpki.Issue(f, issuer, tmpl, key)
}
