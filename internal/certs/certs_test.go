package certs_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/testpki"
)

func newKey(t testing.TB) *ecdsa.PrivateKey { t.Helper(); return testpki.Key(t) }

func newCert(t testing.TB, key crypto.Signer) *x509.Certificate {
	t.Helper()
	return testpki.Issue(t, nil, &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "c"}}, key).Cert
}

func TestFits(t *testing.T) {
	key := newKey(t)
	cert := newCert(t, key)
	if !certs.Fits(cert, key) || certs.Fits(cert, newKey(t)) {
		t.Error("Fits compares public keys")
	}
	if certs.Fits(&x509.Certificate{}, key) || certs.Fits(cert, removedKey{}) {
		t.Error("without a key nothing fits")
	}
	if fp := certs.Fingerprint(cert); len(fp) != 64 || fp != strings.ToLower(fp) {
		t.Errorf("fingerprint %q", fp)
	}
}

func TestParseFingerprint(t *testing.T) {
	want := certs.Fingerprint(newCert(t, newKey(t)))
	var colons []string
	for i := 0; i < len(want); i += 2 {
		colons = append(colons, strings.ToUpper(want[i:i+2]))
	}
	for _, in := range []string{want, " " + strings.ToUpper(want) + "\n", strings.Join(colons, ":"), strings.Join(colons, "-")} {
		if got, err := certs.ParseFingerprint(in); err != nil || got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", want[1:], want + "00", "g" + want[1:], strings.Repeat("x", 1<<20)} {
		if _, err := certs.ParseFingerprint(in); !errors.Is(err, certs.ErrFingerprint) || len(err.Error()) > 200 {
			t.Errorf("%.80q: %.300v", in, err)
		}
	}
}

func TestPool(t *testing.T) {
	a, b := newCert(t, newKey(t)), newCert(t, newKey(t))
	for _, c := range []struct {
		pool *x509.CertPool
		want bool
	}{{certs.Pool(), false}, {certs.Pool(a), false}, {certs.Pool(a, b), true}} {
		_, err := b.Verify(x509.VerifyOptions{Roots: c.pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if (err == nil) != c.want {
			t.Errorf("verified: %v, want success to be %v", err, c.want)
		}
	}
}

func TestHowCertificatesAreCalled(t *testing.T) {
	cert := newCert(t, newKey(t))
	cert.DNSNames, cert.EmailAddresses = []string{"a", "artstore_b"}, []string{"x@y"}
	cert.IPAddresses, cert.URIs = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, []*url.URL{{Scheme: "spiffe", Host: "artstore", Path: "/b"}}
	if got, want := strings.Join(certs.Names(cert), " "), "a artstore_b 127.0.0.1 ::1 spiffe://artstore/b x@y"; got != want {
		t.Errorf("names %q, want %q", got, want)
	}
	if cert.DNSNames = append(cert.DNSNames, "c"); len(certs.Names(cert)) != 7 {
		t.Error("a name is missing")
	}
	if got := certs.Serial(cert) + " " + certs.HexSerial("255") + " " + certs.HexSerial("?"); got != "0x7 0xff ?" {
		t.Errorf("serials %q", got)
	}
}

// removedKey is a signer, as of a token that was removed, without a public key.
type removedKey struct{ crypto.Signer }

func (removedKey) Public() crypto.PublicKey { return (*ecdsa.PublicKey)(nil) }

// FuzzParseSerial: what is accepted is a positive number of at most 20 octets,
// and its decimal form is accepted as itself.
func FuzzParseSerial(f *testing.F) {
	for _, s := range []string{"1", "0x1F", "aa:bb", "-1", "1_0", "", ":", "0x", "99999999999999999999999999999999999999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		out, err := certs.ParseSerial(s)
		if err != nil {
			return
		}
		n, ok := new(big.Int).SetString(out, 10)
		if !ok || n.Sign() <= 0 || n.BitLen() > 160 {
			t.Fatalf("%q gave %q", s, out)
		}
		if again, err := certs.ParseSerial(out); err != nil || again != out {
			t.Fatalf("%q is not stable: %q %v", out, again, err)
		}
	})
}
