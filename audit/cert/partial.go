package cert

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/artstore/artstore-pki/audit/internal/ber"
	"github.com/artstore/artstore-pki/internal/humantime"
)

// crypto/x509 refuses certificates that other programs use: with a negative serial number,
// with an extension twice, or with an odd name. They expire like any other.

// ParsePartial reads serial number, dates, names and the kind of the key of a certificate, or
// returns nil. A date that cannot be read is zero, and names may be garbage. All other
// fields stay zero, so the certificate can be shown and not verified.
func ParsePartial(data []byte) *Certificate {
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
	from, _ := ber.ReadTime(&validity)
	to, _ := ber.ReadTime(&validity)
	c := &Certificate{
		Raw: whole, Serial: "0x" + integer(serial).Text(16), NotBefore: from, NotAfter: to, Fingerprint: sha256.Sum256(whole),
		RawIssuer: issuer, IssuerName: commonName(issuer),
	}
	if tbs.ReadASN1Element(&subject, der.SEQUENCE) {
		c.RawSubject = subject
		c.readRest(tbs)
	}
	c.Name = cmp.Or(commonName(c.RawSubject), firstName(c.Names), c.Serial)
	return c
}

// firstName returns the first of some names, or "".
func firstName(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return names[0]
}

// dated reports whether both dates could be read.
func (c *Certificate) dated() bool { return !c.NotBefore.IsZero() && !c.NotAfter.IsZero() }

// known returns a clause about a certificate that cannot be judged because a date is missing.
func (c *Certificate) known() string {
	const shown = 100 // bytes of a name
	text := fmt.Sprintf("it is %.*q of %.*q, serial number %.*s, key %s", shown, c.Name, shown, c.IssuerName, shown, c.Serial, cmp.Or(c.Key.String(), "unknown"))
	if !c.NotBefore.IsZero() {
		text += ", it begins " + humantime.Stamp(c.NotBefore)
	}
	if !c.NotAfter.IsZero() {
		text += ", it ends " + humantime.Stamp(c.NotAfter)
	}
	return text
}

// readRest reads the key and the alternative names, which follow the subject.
func (c *Certificate) readRest(tbs cryptobyte.String) {
	var key, extensions cryptobyte.String
	var some bool
	if !tbs.ReadASN1Element(&key, der.SEQUENCE) {
		return
	}
	if public, err := x509.ParsePKIXPublicKey(key); err == nil {
		c.Key = KeyKindOf(&x509.Certificate{PublicKey: public})
	}
	ok := tbs.SkipOptionalASN1(der.Tag(1).ContextSpecific()) && tbs.SkipOptionalASN1(der.Tag(2).ContextSpecific()) &&
		tbs.ReadOptionalASN1(&extensions, &some, der.Tag(3).Constructed().ContextSpecific()) && some && extensions.ReadASN1(&extensions, der.SEQUENCE)
	for ok && !extensions.Empty() {
		var extension, value, names cryptobyte.String
		var id asn1.ObjectIdentifier
		ok = extensions.ReadASN1(&extension, der.SEQUENCE) && extension.ReadASN1ObjectIdentifier(&id) &&
			extension.SkipOptionalASN1(der.BOOLEAN) && extension.ReadASN1(&value, der.OCTET_STRING)
		if ok && id.Equal(oidNames) && value.ReadASN1(&names, der.SEQUENCE) {
			c.Names = append(c.Names, generalNames(names)...)
		}
	}
}

// generalNames returns the texts and addresses among names (RFC 5280 §4.2.1.6).
func generalNames(names cryptobyte.String) (out []string) {
	for !names.Empty() {
		var value cryptobyte.String
		var tag der.Tag
		if !names.ReadAnyASN1(&value, &tag) {
			break
		}
		switch tag {
		case der.Tag(1).ContextSpecific(), der.Tag(2).ContextSpecific(), der.Tag(6).ContextSpecific(): // mail, DNS, URI
			out = append(out, strings.ToValidUTF8(string(value), "\ufffd"))
		case der.Tag(7).ContextSpecific():
			out = append(out, net.IP(value).String())
		}
	}
	return out
}

// integer reads a two's complement of any length, also with more bytes than necessary.
func integer(b []byte) *big.Int {
	n := new(big.Int).SetBytes(b)
	if len(b) > 0 && b[0]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return n
}

var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// commonName returns the last common name of a Name, as crypto/x509 does, or "".
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
