package cacert_test

import (
	"crypto/x509"
	"math/big"
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

func TestSuccessorIsAlike(t *testing.T) {
	_, old := makePair(t, 10*time.Hour, 3*time.Hour)
	want := cacert.SuccessorOf(old.Cert, "Test")
	if want.KeyType != keytype.Ed25519 || want.Name != "Test" || (want.Lifetime-3*time.Hour).Abs() > time.Second {
		t.Errorf("got %+v", want)
	}
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
