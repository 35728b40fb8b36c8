package algorithms_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit/internal/algorithms"
)

// What Go knows has the same names here.
func TestNamesOfGo(t *testing.T) {
	curve, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	long, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	for _, c := range []struct {
		key  any
		name string
	}{{curve, "ECDSA P-384"}, {long, "RSA"}, {edwards, "Ed25519"}} {
		tpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now()}
		public := any(nil)
		switch k := c.key.(type) {
		case *ecdsa.PrivateKey:
			public = k.Public()
		case *rsa.PrivateKey:
			public = k.Public()
		case ed25519.PrivateKey:
			public = k.Public()
		}
		der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, public, c.key)
		must(t, err)
		x, err := x509.ParseCertificate(der)
		must(t, err)
		if key, signature := algorithms.Certificate(der); key != c.name || signature != x.SignatureAlgorithm.String() {
			t.Errorf("%s, %s; Go says %s", key, signature, x.SignatureAlgorithm)
		}
	}
}

// What Go has no name for is named by its identifier, or shown as that.
func TestKey(t *testing.T) {
	info := func(ids ...asn1.ObjectIdentifier) []byte {
		whole, err := asn1.Marshal(struct {
			IDs []asn1.ObjectIdentifier
			Key asn1.BitString
		}{ids, asn1.BitString{}})
		must(t, err)
		return whole
	}
	for want, data := range map[string][]byte{
		"ML-DSA-65":             info(asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 18}),
		"ML-KEM-768":            info(asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 4, 2}),
		"SLH-DSA-SHAKE-256f":    info(asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 31}),
		"ECDSA brainpoolP256r1": info(asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, asn1.ObjectIdentifier{1, 3, 36, 3, 3, 2, 8, 1, 1, 7}),
		"1.2.3.4":               info(asn1.ObjectIdentifier{1, 2, 3, 4}),
		"":                      []byte("\x30\x82"),
	} {
		if got := algorithms.Key(data); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Contract: any input gives names of a bounded length.
func FuzzCertificate(f *testing.F) {
	f.Add([]byte("\x30\x03\x30\x01\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, signature := algorithms.Certificate(data)
		if len(key) > 500 || len(signature) > 500 {
			t.Errorf("%d and %d bytes", len(key), len(signature))
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
