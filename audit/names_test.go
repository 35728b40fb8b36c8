package audit_test

import (
	"crypto/x509"
	"math/big"
	"net"
	"testing"

	"github.com/artstore/artstore-pki/audit"
)

func TestOddNames(t *testing.T) {
	root := newPair(t, nil, "Test Root", authority)
	for name, want := range map[string]string{
		"a.test": "", "*.a.test": "", "_svc.a.test": "", "localhost": "",
		"192.0.2.1": "WARN odd-name", "2001:db8::1": "WARN odd-name", "*.com": "WARN odd-name", "*": "WARN odd-name",
		"*.*.a.test": "WARN odd-name", "a.*.test": "WARN odd-name", "w*.a.test": "WARN odd-name",
	} {
		leaf := newPair(t, root, "svc", func(c *x509.Certificate) {
			c.DNSNames, c.IPAddresses = []string{name}, []net.IP{net.IPv4(192, 0, 2, 1)}
		})
		if want == "" {
			want = "OK"
		}
		if state, text, _ := verdictOf(t, audit.Subject{Cert: seen(leaf.cert), Bundle: seenAll([]*pair{root})}); state != want {
			t.Errorf("%s: %s %q, want %s", name, state, text, want)
		}
	}
}

func withSerial(n int64) spec { return func(c *x509.Certificate) { c.SerialNumber = big.NewInt(n) } }

func TestSameSerial(t *testing.T) {
	one, namesake := newPair(t, nil, "R", authority), newPair(t, nil, "R", authority)
	noID := func(p *pair) *pair { // its leaves do not name its key
		bare := *p.cert
		bare.SubjectKeyId = nil
		return &pair{cert: &bare, key: p.key}
	}
	first := newPair(t, one, "first", withSerial(7))
	for _, c := range []struct {
		name   string
		second *pair
		want   string
	}{
		{"the same certificate elsewhere", first, ""},
		{"another number", newPair(t, one, "second", withSerial(8)), ""},
		{"the same number", newPair(t, one, "second", withSerial(7)), "crit: its serial number is also that of first in /1, by the same issuer"},
		{"another authority of that name", newPair(t, namesake, "second", withSerial(7)), ""},
		{"an authority of that name, whose key is not known", newPair(t, noID(namesake), "second", withSerial(7)), "warn: its serial number is also that of first in /1, by the same issuer as far as its name says"},
	} {
		r := run(t, static{{Kind: "file", Place: "/1", Cert: seen(first.cert)}, {Kind: "file", Place: "/2", Cert: seen(c.second.cert)}})
		if got := findings(r, "same-serial")["file /2 same-serial"]; got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
