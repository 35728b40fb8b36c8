package audit

import (
	"cmp"
	"crypto/sha256"
	"encoding/asn1"
	"math/big"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// crypto/x509 refuses certificates that others go on using: with a negative
// serial number, an extension twice, an odd name. They end like any other, so
// what an audit needs most of them is read all the same.

// remains reads raw bytes, serial number, dates and common names, or returns
// nil. What follows the dates, and names, may be garbage. Anything else stays
// zero: a certificate like this is good for showing, never for verifying.
func remains(data []byte) *Certificate {
	var whole, certificate, tbs, issuer, validity, subject cryptobyte.String
	var serial cryptobyte.String
	input := cryptobyte.String(data)
	ok := input.ReadASN1Element(&whole, der.SEQUENCE)
	certificate = whole
	ok = ok && certificate.ReadASN1(&certificate, der.SEQUENCE) &&
		certificate.ReadASN1(&tbs, der.SEQUENCE) &&
		tbs.SkipOptionalASN1(der.Tag(0).Constructed().ContextSpecific()) && // the version
		tbs.ReadASN1(&serial, der.INTEGER) &&
		tbs.SkipASN1(der.SEQUENCE) && // the algorithm of the signature
		tbs.ReadASN1Element(&issuer, der.SEQUENCE) &&
		tbs.ReadASN1(&validity, der.SEQUENCE)
	if !ok {
		return nil
	}
	from, okFrom := readTime(&validity)
	to, okTo := readTime(&validity)
	if !okFrom || !okTo {
		return nil
	}
	if !tbs.ReadASN1Element(&subject, der.SEQUENCE) {
		subject = nil
	}
	number := "0x" + integer(serial).Text(16)
	return &Certificate{
		raw: whole, serial: number, notBefore: from, notAfter: to, fingerprint: sha256.Sum256(whole), partial: true,
		issuer: issuer, issuerName: commonName(issuer), subject: subject, name: cmp.Or(commonName(subject), number),
	}
}

// integer is a two's complement of any length, also one with more bytes than it needs.
func integer(b []byte) *big.Int {
	n := new(big.Int).SetBytes(b)
	if len(b) > 0 && b[0]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return n
}

// timeLayouts are what is met in the wild, beyond the one form for each type
// that RFC 5280 section 4.1.2.5 allows: without seconds, without a zone.
var timeLayouts = map[der.Tag][]string{
	der.UTCTime:         {"060102150405Z0700", "0601021504Z0700", "060102150405"},
	der.GeneralizedTime: {"20060102150405Z0700", "200601021504Z0700", "20060102150405"},
}

func readTime(s *cryptobyte.String) (time.Time, bool) {
	var text cryptobyte.String
	var tag der.Tag
	if !s.ReadAnyASN1(&text, &tag) {
		return time.Time{}, false
	}
	for _, layout := range timeLayouts[tag] {
		t, err := time.Parse(layout, string(text))
		if err != nil {
			continue
		}
		if tag == der.UTCTime && t.Year() >= 2050 {
			t = t.AddDate(-100, 0, 0) // RFC 5280 section 4.1.2.5.1; Go's years turn at 69
		}
		return t.UTC(), true
	}
	return time.Time{}, false
}

var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// commonName is the last common name of a Name, as crypto/x509 has it, or "".
func commonName(name cryptobyte.String) (found string) {
	if !name.ReadASN1(&name, der.SEQUENCE) {
		return ""
	}
	for !name.Empty() {
		var set cryptobyte.String
		if !name.ReadASN1(&set, der.SET) {
			return found
		}
		for !set.Empty() {
			var attribute, value cryptobyte.String
			var id asn1.ObjectIdentifier
			if !set.ReadASN1(&attribute, der.SEQUENCE) || !attribute.ReadASN1ObjectIdentifier(&id) || !attribute.ReadAnyASN1(&value, nil) {
				return found
			}
			if id.Equal(oidCommonName) {
				found = strings.ToValidUTF8(string(value), "\ufffd")
			}
		}
	}
	return found
}
