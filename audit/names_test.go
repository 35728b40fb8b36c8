package audit_test

import (
	"crypto/x509"
	"math/big"
	"net"
	"testing"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

func TestOddNames(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	for name, want := range map[string]string{
		"a.test": "", "*.a.test": "", "_svc.a.test": "", "localhost": "",
		"192.0.2.1": "WARN odd-name", "2001:db8::1": "WARN odd-name", "*.com": "WARN odd-name", "*": "WARN odd-name",
		"*.*.a.test": "WARN odd-name", "a.*.test": "WARN odd-name", "w*.a.test": "WARN odd-name",
	} {
		leaf := certtest.New(t, root, "svc", func(c *x509.Certificate) {
			c.DNSNames, c.IPAddresses = []string{name}, []net.IP{net.IPv4(192, 0, 2, 1)}
		})
		if want == "" {
			want = "OK"
		}
		if state, text, _ := verdictOf(t, audit.Subject{Cert: certtest.Seen(leaf.Cert), Bundle: certtest.SeenAll([]*certtest.Pair{root})}); state != want {
			t.Errorf("%s: %s %q, want %s", name, state, text, want)
		}
	}
}

func withSerial(n int64) certtest.Spec {
	return func(c *x509.Certificate) { c.SerialNumber = big.NewInt(n) }
}

func TestSameSerial(t *testing.T) {
	one, namesake := certtest.New(t, nil, "R", certtest.Authority), certtest.New(t, nil, "R", certtest.Authority)
	noID := func(p *certtest.Pair) *certtest.Pair { // its leaves do not name its key
		bare := *p.Cert
		bare.SubjectKeyId = nil
		return &certtest.Pair{Cert: &bare, Key: p.Key}
	}
	first := certtest.New(t, one, "first", withSerial(7))
	for _, c := range []struct {
		name   string
		second *certtest.Pair
		want   string
	}{
		{"the same certificate elsewhere", first, ""},
		{"another number", certtest.New(t, one, "second", withSerial(8)), ""},
		{"the same number", certtest.New(t, one, "second", withSerial(7)), "crit: its serial number is also that of first in /1, by the same issuer"},
		{"another authority of that name", certtest.New(t, namesake, "second", withSerial(7)), ""},
		{"an authority of that name, whose key is not known", certtest.New(t, noID(namesake), "second", withSerial(7)), "warn: its serial number is also that of first in /1, by the same issuer as far as its name says"},
	} {
		r := audittest.Run(t, audittest.Static{{Kind: "file", Place: "/1", Cert: certtest.Seen(first.Cert)}, {Kind: "file", Place: "/2", Cert: certtest.Seen(c.second.Cert)}})
		if got := findings(r, "same-serial")["file /2 same-serial"]; got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
