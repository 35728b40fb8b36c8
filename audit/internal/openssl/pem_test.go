package openssl_test

import (
	"crypto/x509"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/openssl"
)

func TestBlockFlaw(t *testing.T) {
	const begin, end, flaw = "-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n", "there is a line without text in it"
	for name, c := range map[string]struct{ text, want string }{
		"plain":                        {begin + "AAAA\nAAAA\n" + end, ""},
		"behind the marker":            {begin + "\nAAAA\n" + end, ""},
		"blanks behind the marker":     {begin + " \t\r\nAAAA\n" + end, ""},
		"two behind the marker":        {begin + "\n\nAAAA\n" + end, flaw},
		"in the middle":                {begin + "AAAA\n\nAAAA\n" + end, flaw},
		"blanks in the middle":         {begin + "AAAA\r\n \r\nAAAA\r\n" + end, flaw},
		"before the end":               {begin + "AAAA\n\n" + end, flaw},
		"behind the end":               {begin + "AAAA\n" + end + "\n\n", ""},
		"without a line break":         {begin + "AAAA\n" + end[:len(end)-1], ""},
		"nothing":                      {"", ""},
		"nothing but lines of nothing": {"\n\n\n\n", ""},
	} {
		if got := openssl.BlockFlaw([]byte(c.text)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestEnds(t *testing.T) {
	for text, want := range map[string]bool{"": false, "mine\n": false, "mine\x00\n": false, "\x00\n": true, "mine\n\x00\x00\n": true} {
		if got := openssl.Ends([]byte(text)); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
}

// server, client and anyUse are object identifiers in DER.
const (
	server = "\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01"
	client = "\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x02"
	anyUse = "\x06\x04\x55\x1d\x25\x00"
)

func tlv(tag byte, content string) string { return string([]byte{tag, byte(len(content))}) + content }

func TestTrusts(t *testing.T) {
	for name, c := range map[string]struct {
		aux            string
		server, client bool
	}{
		"nothing":                  {"", true, true},
		"empty":                    {tlv(0x30, ""), true, true},
		"an alias alone":           {tlv(0x30, tlv(0x0c, "mine")), true, true},
		"trusted for servers":      {tlv(0x30, tlv(0x30, server)), true, false},
		"trusted for both":         {tlv(0x30, tlv(0x30, server+client)+tlv(0x0c, "mine")), true, true},
		"trusted for any use":      {tlv(0x30, tlv(0x30, anyUse)), true, true},
		"an empty list of uses":    {tlv(0x30, tlv(0x30, "")), false, false},
		"rejected for servers":     {tlv(0x30, tlv(0xa0, server)), false, true},
		"rejected for any use":     {tlv(0x30, tlv(0xa0, anyUse)), false, false},
		"trusted and rejected":     {tlv(0x30, tlv(0x30, server+client)+tlv(0xa0, server)), false, true},
		"in another order":         {tlv(0x30, tlv(0x0c, "mine")+tlv(0x30, server)), false, false},
		"an identifier of its key": {tlv(0x30, tlv(0x30, server)+tlv(0x0c, "mine")+tlv(0x04, "id")), true, false},
		"cut off":                  {tlv(0x30, tlv(0x30, server))[:8], false, false},
		"something behind it":      {tlv(0x30, tlv(0x30, server)) + "x", false, false},
		"no identifiers in a list": {tlv(0x30, tlv(0x30, tlv(0x0c, "mine"))), false, false},
	} {
		if got := openssl.Trusts([]byte(c.aux), x509.ExtKeyUsageServerAuth); got != c.server {
			t.Errorf("%s: servers: %t", name, got)
		}
		if got := openssl.Trusts([]byte(c.aux), x509.ExtKeyUsageClientAuth); got != c.client {
			t.Errorf("%s: clients: %t", name, got)
		}
	}
}

// Contract: what is rejected for a use is not trusted for it, whatever else stands there.
func FuzzTrusts(f *testing.F) {
	f.Add([]byte(tlv(0x30, server)), []byte(server))
	f.Add([]byte(""), []byte(anyUse))
	f.Fuzz(func(t *testing.T, trust, reject []byte) {
		if len(trust)+len(reject) > 100 {
			return // longer than the lengths here
		}
		if openssl.Trusts([]byte(tlv(0x30, tlv(0x30, string(trust))+tlv(0xa0, server+string(reject)))), x509.ExtKeyUsageServerAuth) {
			t.Error("trusted")
		}
	})
}
