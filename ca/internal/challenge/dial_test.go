package challenge

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/artstore/artstore-pki/ca/internal/problem"
)

// answerDNS serves one address for every name.
func answerDNS(t *testing.T, addr netip.Addr) string {
	t.Helper()
	return answerDNSWhen(t, addr, func() {})
}

// answerDNSWhen calls asked before it answers.
func answerDNSWhen(t *testing.T, addr netip.Addr, asked func()) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var p dnsmessage.Parser
			head, err := p.Start(buf[:n])
			if err != nil {
				continue
			}
			q, err := p.Question()
			if err != nil {
				continue
			}
			asked()
			msg := dnsmessage.Message{Header: dnsmessage.Header{ID: head.ID, Response: true, RecursionAvailable: true}, Questions: []dnsmessage.Question{q}}
			rh := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
			switch {
			case q.Type == dnsmessage.TypeA && addr.Is4():
				msg.Answers = []dnsmessage.Resource{{Header: rh, Body: &dnsmessage.AResource{A: addr.As4()}}}
			case q.Type == dnsmessage.TypeAAAA && addr.Is6():
				msg.Answers = []dnsmessage.Resource{{Header: rh, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}}}
			}
			if reply, err := msg.Pack(); err == nil {
				_, _ = conn.WriteTo(reply, from)
			}
		}
	}()
	return conn.LocalAddr().String()
}

// A name that leads to the authority's own machine or link is not asked, in
// whatever form the DNS server writes the address.
func TestForbiddenAddresses(t *testing.T) {
	for addr, why := range map[string]string{
		"127.0.0.1":                "loopback",
		"127.0.1.1":                "loopback", // Debian's /etc/hosts
		"::1":                      "loopback",
		"::ffff:127.0.0.1":         "loopback", // RFC 4291 §2.5.5.2
		"64:ff9b::7f00:1":          "loopback", // RFC 6052
		"2002:7f00:1::":            "loopback", // RFC 3056
		"::127.0.0.1":              "loopback", // RFC 4291 §2.5.5.1
		"169.254.169.254":          "link-local",
		"::ffff:169.254.169.254":   "link-local",
		"64:ff9b::a9fe:a9fe":       "link-local",
		"64:ff9b:1::169.254.169.1": "link-local",
		"fe80::1":                  "link-local",
		"0.0.0.0":                  "unspecified",
		"0.0.0.1":                  "unspecified",
		"::":                       "unspecified",
		"224.0.0.1":                "multicast",
		"ff02::1":                  "multicast",
		"255.255.255.255":          "broadcast",
	} {
		t.Run(addr, func(t *testing.T) {
			v := New(Config{Resolver: answerDNS(t, netip.MustParseAddr(addr)), HTTPPort: "9", TLSPort: "9"})
			for _, kind := range []string{HTTP01, TLSALPN01} {
				p := v.Validate(t.Context(), Challenge{Kind: kind, Name: "web.example", Token: "t", KeyAuthorization: "t.k"})
				if p == nil || p.Type != problem.Connection || !strings.Contains(p.Detail, why) || !strings.Contains(p.Detail, "does not connect there") {
					t.Errorf("%s: %v, want it refused as %s", kind, p, why)
				}
			}
		})
	}
}

// A validation that ends while net/http still connects in its name has a problem, and
// nothing that the two would both touch. The race detector sees it if there is.
func TestEndWhileConnecting(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	for range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		v := New(Config{Resolver: answerDNSWhen(t, netip.MustParseAddr("127.0.0.1"), cancel), HTTPPort: portOf(t, ln.Addr()), Networks: loopback})
		if p := v.Validate(ctx, Challenge{HTTP01, "web.example", "token", keyAuth}); p == nil || p.Type != problem.Connection {
			t.Errorf("%v", p)
		}
		conn, err := ln.Accept() // it connects all the same
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	}
}

// Networks of the provisioner are the only ones that are asked, and may be those
// that are refused otherwise.
func TestNetworks(t *testing.T) {
	g := guard{[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}
	for addr, good := range map[string]bool{
		"10.1.2.3": true, "::ffff:10.1.2.3": true, "127.0.0.1": true, "fd00::1": true, "64:ff9b::a01:203": true,
		"192.0.2.1": false, "::1": false, "169.254.169.254": false, "2001:db8::1": false, "fe80::1%eth0": false,
	} {
		if err := g.check(netip.MustParseAddr(addr)); (err == nil) != good {
			t.Errorf("%s: %v", addr, err)
		}
	}
	for _, addr := range []string{"10.1.2.3", "192.168.1.1", "2001:db8::1", "fd00::1", "64:ff9b::a01:203"} {
		if err := (guard{}).check(netip.MustParseAddr(addr)); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

// FuzzGuard: no spelling of an address of this machine passes, and nothing panics.
func FuzzGuard(f *testing.F) {
	for _, s := range []string{"127.0.0.1", "::ffff:127.9.9.9", "64:ff9b::7f01:203", "fe80::1%lo", "10.0.0.1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return
		}
		if err := (guard{}).check(addr); err == nil && (addr.Unmap().IsLoopback() || addr.Unmap().IsLinkLocalUnicast() || addr.IsUnspecified() || addr.IsMulticast()) {
			t.Errorf("%s passes", addr)
		}
	})
}
