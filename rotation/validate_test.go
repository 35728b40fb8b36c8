package rotation_test

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/rotation"
)

// TestGate proposes one candidate at a time to an identity. The candidate is refused
// with a reason and changes nothing, or it is published.
func TestGate(t *testing.T) {
	ca, other := newCA(t, "ca"), newCA(t, "other")
	good := ca.leaf(t, "svc", nil)
	for _, c := range []struct {
		name string
		make func() rotation.Material
		want string // of the refusal; "" is published
	}{
		{"renewed", func() rotation.Material { return ca.leaf(t, "svc", nil) }, ""},
		{"other key", func() rotation.Material {
			m := ca.leaf(t, "svc", nil)
			m.Certificate.PrivateKey = newKey(t)
			return m
		}, "does not fit"},
		{"no key", func() rotation.Material { m := ca.leaf(t, "svc", nil); m.Certificate.PrivateKey = nil; return m }, "cannot sign"},
		{"no certificate", func() rotation.Material { m := ca.leaf(t, "svc", nil); m.Certificate.Certificate = nil; return m }, "certificate is missing"},
		{"garbage in the chain", func() rotation.Material {
			m := ca.leaf(t, "svc", nil)
			m.Certificate.Certificate = append(m.Certificate.Certificate, []byte("x"))
			return m
		}, "certificate 3 of the chain"},
		{"expired", func() rotation.Material {
			return ca.leaf(t, "svc", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) })
		}, "expired at"},
		{"no TLS usage", func() rotation.Material {
			return ca.leaf(t, "svc", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} })
		}, "neither clientAuth nor serverAuth"},
		{"no digitalSignature", func() rotation.Material {
			return ca.leaf(t, "svc", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })
		}, "digitalSignature"},
		{"any usage", func() rotation.Material {
			return ca.leaf(t, "svc", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} })
		}, ""},
		{"no usage extension", func() rotation.Material {
			return ca.leaf(t, "svc", func(c *x509.Certificate) { c.ExtKeyUsage = nil })
		}, ""},
		{"CA first", func() rotation.Material {
			m := ca.leaf(t, "svc", nil)
			m.Certificate.Certificate, m.Certificate.PrivateKey = [][]byte{ca.inter.Raw}, ca.interKey
			return m
		}, "is a CA"},
		{"empty bundle", func() rotation.Material { m := ca.leaf(t, "svc", nil); m.Roots = nil; return m }, "bundle is empty"},
		{"leaf as root", func() rotation.Material {
			m := ca.leaf(t, "svc", nil)
			m.Roots = append(m.Roots, m.Certificate.Leaf)
			return m
		}, "certificate 2 of the trust bundle is no CA"},
		{"chain truncated", func() rotation.Material {
			m := ca.leaf(t, "svc", nil)
			m.Certificate.Certificate = m.Certificate.Certificate[:1]
			return m
		}, "truncated"},
		{"chain of another CA", func() rotation.Material {
			m := ca.leaf(t, "svc", nil)
			m.Certificate.Certificate[1] = other.inter.Raw
			return m
		}, "truncated"},
		{"a certificate of another key between", func() rotation.Material {
			m, old := ca.leaf(t, "svc", nil), ca.template("ca intermediate")
			m.Certificate.Certificate = append(m.Certificate.Certificate[:1:1], sign(t, old, ca.root, newKey(t).Public(), ca.rootKey).Raw, ca.inter.Raw, other.inter.Raw)
			return m
		}, ""},
		{"issuer unknown", func() rotation.Material {
			m := other.leaf(t, "svc", nil)
			m.Certificate.Certificate, m.Roots = m.Certificate.Certificate[:1], good.Roots
			return m
		}, "neither in the chain nor in the trust bundle"},
		{"expired intermediate", func() rotation.Material {
			old := *ca
			tmpl := ca.template("old intermediate")
			tmpl.NotAfter = time.Now().Add(-time.Minute)
			old.interKey = newKey(t)
			old.inter = sign(t, tmpl, ca.root, old.interKey.Public(), ca.rootKey)
			return old.leaf(t, "svc", nil)
		}, "verifying the chain"},
		{"root at the end", func() rotation.Material {
			m := ca.leaf(t, "svc", nil)
			m.Certificate.Certificate = append(m.Certificate.Certificate, ca.root.Raw)
			return m
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := newPushed(good)
			id := open(t, src, 0)
			before, m := serial(id), c.make()
			err := src.push(m)
			st := id.Status()
			if c.want == "" {
				if err != nil || serial(id) != m.Certificate.Leaf.SerialNumber.String() || st.LastError != "" || st.Generation != 2 {
					t.Errorf("refused: %v, status %+v", err, st)
				}
				if n := len(id.Current().Chain()); n != 2 {
					t.Errorf("%d certificates are sent, want leaf and intermediate", n)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("err = %v, want %q", err, c.want)
			}
			if serial(id) != before || st.Generation != 1 || st.LastError != err.Error() || st.Refused != 1 {
				t.Errorf("the last good generation must stay: %+v", st)
			}
			_ = src.push(m) // told once
			if st := id.Status(); st.Refused != 1 {
				t.Errorf("repetition counted: %d", st.Refused)
			}
			if id.Check() != nil {
				t.Error("a refused candidate must not make the service unready")
			}
		})
	}
}

func TestIdenticalBytesAreNoRotation(t *testing.T) {
	ca := newCA(t, "ca")
	m := ca.leaf(t, "svc", nil)
	src := newPushed(m)
	id := open(t, src, 0)
	g := id.Current()
	m.Version = "touched"
	src.mustPush(t, m)
	if id.Current() != g {
		t.Error("identical content made a new generation")
	}
	m.Roots = append(m.Roots, newCA(t, "second").root)
	src.mustPush(t, m)
	if id.Current() == g || id.Current().Number() != 2 {
		t.Error("a wider bundle is a rotation")
	}
}

// TestTrustThatRejectsUs expects that a bundle without the own root is published with a
// warning.
func TestTrustThatRejectsUs(t *testing.T) {
	ca, other := newCA(t, "ca"), newCA(t, "other")
	m := ca.leaf(t, "svc", nil)
	src := newPushed(m)
	id := open(t, src, 0)
	changes := make(chan rotation.Change, 4)
	defer id.Subscribe(func(c rotation.Change) { changes <- c })()
	m.Roots = []*x509.Certificate{other.root}
	src.mustPush(t, m)
	c := <-changes
	if c.Warning == nil || c.Err != nil || c.Generation.Number() != 2 || c.Previous.Number() != 1 {
		t.Errorf("change %+v", c)
	}
	if st := id.Status(); st.OwnTrusted || st.Roots != 1 || st.TrustDigest != id.Current().TrustDigest() {
		t.Errorf("status %+v", st)
	}
	// The next renewal still comes from the old root, with only its chain as proof.
	next := ca.leaf(t, "svc", nil)
	next.Roots = m.Roots
	src.mustPush(t, next)
	// But the same chain cut short is a torn file, not a moved bundle.
	cut := ca.leaf(t, "svc", nil)
	cut.Roots, cut.Certificate.Certificate = m.Roots, cut.Certificate.Certificate[:1]
	if err := src.push(cut); err == nil || !strings.Contains(err.Error(), "truncated") {
		t.Errorf("truncated chain: %v", err)
	}
}

// TestUsesBind expects that a candidate is refused if it cannot be used for what the
// process uses its identity for.
func TestUsesBind(t *testing.T) {
	ca := newCA(t, "ca")
	only := func(u x509.ExtKeyUsage) rotation.Material {
		return ca.leaf(t, "svc", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{u} })
	}
	src := newPushed(only(x509.ExtKeyUsageClientAuth))
	id := open(t, src, 0)
	if _, err := id.ServerTLSConfig(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()}); err == nil {
		t.Error("served with a client certificate")
	}
	src.mustPush(t, only(x509.ExtKeyUsageServerAuth))
	if _, err := id.ServerTLSConfig(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()}); err != nil {
		t.Fatal(err)
	}
	if err := src.push(only(x509.ExtKeyUsageClientAuth)); err == nil || !strings.Contains(err.Error(), "lacks serverAuth") {
		t.Errorf("server usage lost: %v", err)
	}
	if _, err := id.Transport(rotation.TransportOptions{}); err == nil || !strings.Contains(err.Error(), "lacks clientAuth") {
		t.Errorf("a client with a server certificate: %v", err)
	}
	src.mustPush(t, ca.leaf(t, "svc", nil)) // both
	_ = transport(t, id, rotation.TransportOptions{})
	if err := src.push(only(x509.ExtKeyUsageServerAuth)); err == nil || !strings.Contains(err.Error(), "lacks clientAuth") {
		t.Errorf("client usage lost: %v", err)
	}
}
