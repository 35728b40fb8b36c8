package cacert_test

import (
	"bytes"
	"crypto/x509"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/keytype"
)

func makePair(t *testing.T, rootLife, life time.Duration) (root, intermediate cacert.Issuer) {
	t.Helper()
	root, err := cacert.New(cacert.Template{Name: "Test", Lifetime: rootLife}, cacert.Issuer{})
	if err != nil {
		t.Fatal(err)
	}
	if intermediate, err = cacert.New(cacert.Template{Name: "Test", KeyType: keytype.Ed25519, Lifetime: life}, root); err != nil {
		t.Fatal(err)
	}
	return root, intermediate
}

func TestIntermediateIsBounded(t *testing.T) {
	root, intermediate := makePair(t, time.Hour, 2*time.Hour)
	if !intermediate.Cert.NotAfter.Equal(root.Cert.NotAfter) {
		t.Errorf("it ends at %s, its root at %s", intermediate.Cert.NotAfter, root.Cert.NotAfter)
	}
	if c := intermediate.Cert; !c.IsCA || c.MaxPathLen != 0 || !c.MaxPathLenZero {
		t.Errorf("CA %v, path length %d", c.IsCA, c.MaxPathLen)
	}
	if c := root.Cert; !c.IsCA || c.MaxPathLen != 1 {
		t.Errorf("root: CA %v, path length %d", c.IsCA, c.MaxPathLen)
	}
	other, _ := makePair(t, time.Hour, time.Hour)
	if got := cacert.RootOf(intermediate.Cert, []*x509.Certificate{other.Cert, root.Cert}); got != root.Cert {
		t.Error("the root of the intermediate is not found")
	}
	if got := cacert.RootOf(intermediate.Cert, []*x509.Certificate{other.Cert}); got != nil {
		t.Error("a root that did not sign it is found")
	}
	if cacert.KeyID(root.Cert) == cacert.KeyID(other.Cert) || root.Cert.Subject.CommonName == other.Cert.Subject.CommonName {
		t.Error("two roots have one name")
	}
}

// TestSuccessorIsAlike: a successor differs from the certificate that it replaces in key and dates
// only.
func TestSuccessorIsAlike(t *testing.T) {
	_, old := makePair(t, 10*time.Hour, 3*time.Hour)
	want := cacert.SuccessorOf(old.Cert, "Test")
	if want.KeyType != keytype.Ed25519 || want.Name != "Test" || (want.Lifetime-3*time.Hour).Abs() > time.Second {
		t.Errorf("got %+v", want)
	}
	short := *old.Cert
	short.NotBefore = short.NotAfter.Add(-time.Minute) // as somebody else may make one
	if life := cacert.SuccessorOf(&short, "Test").Lifetime; life != time.Minute {
		t.Errorf("the successor of a short one lives for %s", life)
	}
	limits, err := cacert.ParseConstraints([]string{"artstore.internal", "10.0.0.0/8", "2001:db8::/32"})
	if err != nil {
		t.Fatal(err)
	}
	for _, length := range []int{1, 3, cacert.NoPathLength} {
		first, err := cacert.New(cacert.Template{Name: "Test", KeyType: keytype.P384, Lifetime: time.Hour, PathLength: length, Permitted: limits}, cacert.Issuer{})
		if err != nil {
			t.Fatal(err)
		}
		below, err := cacert.New(cacert.SuccessorOf(old.Cert, "Test"), first)
		if err != nil || !below.Cert.MaxPathLenZero {
			t.Errorf("an intermediate under it: %v", err)
		}
		second, err := cacert.New(cacert.SuccessorOf(first.Cert, "Test"), cacert.Issuer{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []*x509.Certificate{first.Cert, second.Cert} {
			if c.MaxPathLen != length || keytype.Of(c.PublicKey) != keytype.P384 || !c.PermittedDNSDomainsCritical {
				t.Errorf("path length %d, want %d; %s", c.MaxPathLen, length, keytype.Of(c.PublicKey))
			}
		}
		extension := func(c *x509.Certificate) []byte {
			for _, e := range c.Extensions {
				if e.Id.String() == "2.5.29.30" { // nameConstraints, RFC 5280 §4.2.1.10
					return e.Value
				}
			}
			return nil
		}
		if a, b := extension(first.Cert), extension(second.Cert); len(a) == 0 || !bytes.Equal(a, b) {
			t.Errorf("name constraints %x, want %x", b, a)
		}
	}
}

// TestConstraints: what a list permits, as crypto/x509 verifies it.
func TestConstraints(t *testing.T) {
	names := []string{"artstore.internal", "ingester.artstore.internal", "artstore_admin_module", "localhost", "10.1.2.3", "11.1.2.3", "2001:db8::1", "::1", "spiffe://artstore/ingester", "spiffe://a.artstore/x"}
	for permit, want := range map[string][]string{
		"":                                    names,
		"artstore.internal":                   {"artstore.internal", "ingester.artstore.internal"},
		"artstore_admin_module localhost ::1": {"artstore_admin_module", "localhost", "::1"},
		"10.0.0.0/8":                          {"10.1.2.3"},
		"0.0.0.0/0":                           {"10.1.2.3", "11.1.2.3"},
		"2001:db8::/32 spiffe://artstore":     {"2001:db8::1", "spiffe://artstore/ingester", "spiffe://a.artstore/x"},
		"spiffe://.artstore":                  {"spiffe://a.artstore/x"},
	} {
		limits, err := cacert.ParseConstraints(strings.Fields(permit))
		if err != nil {
			t.Fatal(err)
		}
		root, err := cacert.New(cacert.Template{Name: "Test", Lifetime: time.Hour, Permitted: limits}, cacert.Issuer{})
		if err != nil {
			t.Fatal(err)
		}
		outside, err := cacert.Outside([]*x509.Certificate{root.Cert}, names)
		if err != nil {
			t.Fatal(err)
		}
		got := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(outside, name) })
		if !slices.Equal(got, want) {
			t.Errorf("%q permits %q, want %q", permit, got, want)
		}
	}
	for _, text := range []string{"", "*.artstore", ".artstore", "artstore.", "Artstore", "10.0.0.1/8", "spiffe://", "spiffe://artstore/x", "://x", "spiffe://10.0.0.1:80", "fe80::1%eth0", "a@b"} {
		if c, err := cacert.ParseConstraints([]string{text}); err == nil {
			t.Errorf("%q is taken as %+v", text, c)
		}
	}
}

// FuzzParseConstraints: a list that is accepted makes a certificate that can be read back.
func FuzzParseConstraints(f *testing.F) {
	for _, seed := range []string{"artstore.internal", "10.0.0.0/8", "::/0", "spiffe://artstore", "spiffe://.artstore", "1.2.3.4"} {
		f.Add(seed)
	}
	key, err := keytype.New(keytype.Ed25519)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		limits, err := cacert.ParseConstraints([]string{text})
		if err != nil {
			return
		}
		if _, err := cacert.New(cacert.Template{Name: "Test", Lifetime: time.Hour, Permitted: limits, Key: key}, cacert.Issuer{}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}

func TestSerial(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		before := time.Now().UnixMilli()
		n, err := cacert.NewSerial()
		if err != nil {
			t.Fatal(err)
		}
		if at := new(big.Int).Rsh(n, 80).Int64(); at < before || at > time.Now().UnixMilli() {
			t.Errorf("serial %s begins with %d, made at %d", n, at, before)
		}
		if n.Sign() <= 0 || n.BitLen() > 159 || seen[n.String()] { // 20 octets at most, RFC 5280 §4.1.2.2
			t.Errorf("serial %s", n)
		}
		seen[n.String()] = true
	}
}

func TestUnknownKeyType(t *testing.T) {
	if _, err := cacert.New(cacert.Template{Name: "Test", KeyType: "RSA-1024", Lifetime: time.Hour}, cacert.Issuer{}); err == nil {
		t.Error("a key that no profile allows signs certificates")
	}
}

// FuzzCheck: whatever certificate comes back from the holder of a root, it is refused, or the root
// has signed it and it has the key that was asked for.
func FuzzCheck(f *testing.F) {
	root, err := cacert.New(cacert.Template{Name: "Root", Lifetime: time.Hour}, cacert.Issuer{})
	if err != nil {
		f.Fatal(err)
	}
	der, key, err := cacert.Request(cacert.Template{Name: "Test", KeyType: keytype.Ed25519})
	if err != nil {
		f.Fatal(err)
	}
	if csr, err := x509.ParseCertificateRequest(der); err != nil || csr.CheckSignature() != nil {
		f.Fatalf("the request is none: %v", err)
	}
	good, err := cacert.New(cacert.Template{Name: "Test", Lifetime: time.Minute, Key: key}, root)
	if err != nil {
		f.Fatal(err)
	}
	if err := cacert.Check(good.Cert, root.Cert, key.Public()); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Cert.Raw)
	f.Add(root.Cert.Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		if err := cacert.Check(c, root.Cert, key.Public()); err == nil && (!c.Equal(good.Cert) || c.CheckSignatureFrom(root.Cert) != nil) {
			t.Errorf("a forged certificate was taken: %x", der)
		}
		_ = cacert.CheckRoot(c)
	})
}
