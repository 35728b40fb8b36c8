package ari_test

import (
	"crypto/x509"
	"math/big"
	"testing"

	"github.com/artstore/artstore-pki/ca/internal/ari"
)

// example is the certificate of RFC 9773 appendix A.
const example = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"

func TestExample(t *testing.T) {
	serial, _ := new(big.Int).SetString("87654321", 16)
	c := &x509.Certificate{AuthorityKeyId: []byte{0x69, 0x88, 0x5b, 0x6b, 0x87, 0x46, 0x40, 0x41, 0xe1, 0xb3, 0x7b, 0x84, 0x7b, 0xa0, 0xae, 0x2c, 0xde, 0x01, 0xc8, 0xd4}, SerialNumber: serial}
	id := ari.Of(c)
	if id.String() != example {
		t.Errorf("%s, want %s", id, example)
	}
	if got, err := ari.Parse(example); err != nil || got != id {
		t.Errorf("%+v %v, want %+v", got, err, id)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		"", ".", "aYhb", "aYhb.", ".AIdl", "aYhb.AIdl.AIdl", "aYhb=.AIdl", "aYhb.AIdlQyE=", "aYhb.h2VDIQ", // the last is negative
		"aYhb.AAE", "aYh b.AIdlQyE", "aYhb.AIdl\n", "aYhb.+/dl", "aYi.AIdl",
	} {
		if id, err := ari.Parse(text); err == nil {
			t.Errorf("%q: %+v", text, id)
		}
	}
}

// FuzzParse: what is accepted has one spelling, and the parts are within their bounds.
func FuzzParse(f *testing.F) {
	f.Add(example)
	f.Add("aYhb.AA")
	f.Add("aYhb.AIdlQyE\n")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ari.Parse(text)
		if err != nil {
			return
		}
		if id.String() != text || len(id.Issuer) > 128 || id.Issuer == "" {
			t.Errorf("%q: %+v is %q", text, id, id)
		}
	})
}
