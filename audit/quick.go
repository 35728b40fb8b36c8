package audit

import (
	"bytes"
	"crypto/ecdh"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"math/bits"
	"net"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// An audit needs a part of a certificate, and crypto/x509 spends most of its time
// on the rest. What follows reads leaves of the kind that internal authorities
// issue: version 3, usual algorithms, no exotic extension. Whatever else it meets
// it leaves to crypto/x509, so its contract is one-sided: what it takes,
// crypto/x509 takes too, and finds the same in it. FuzzQuick holds it to that.

// quick reads a leaf, or returns nil for whatever it leaves to crypto/x509.
func quick(data []byte, sum [sha256.Size]byte) *Certificate {
	var whole, tbs, version, serial, algorithm, outer, validity, extensions cryptobyte.String
	var issuer, subject, public cryptobyte.String
	var signed cryptobyte.String
	var seal []byte
	input := cryptobyte.String(data)
	ok := input.ReadASN1(&whole, der.SEQUENCE) && input.Empty() &&
		whole.ReadASN1Element(&signed, der.SEQUENCE) &&
		whole.ReadASN1(&outer, der.SEQUENCE) &&
		whole.ReadASN1BitStringAsBytes(&seal) && whole.Empty()
	tbs = signed
	ok = ok && tbs.ReadASN1(&tbs, der.SEQUENCE) &&
		tbs.ReadASN1(&version, der.Tag(0).Constructed().ContextSpecific()) && string(version) == "\x02\x01\x02" &&
		tbs.ReadASN1(&serial, der.INTEGER) && natural(serial) &&
		tbs.ReadASN1(&algorithm, der.SEQUENCE) && bytes.Equal(algorithm, outer) &&
		tbs.ReadASN1Element(&issuer, der.SEQUENCE) &&
		tbs.ReadASN1(&validity, der.SEQUENCE) &&
		tbs.ReadASN1Element(&subject, der.SEQUENCE) &&
		tbs.ReadASN1Element(&public, der.SEQUENCE) &&
		tbs.ReadASN1(&extensions, der.Tag(3).Constructed().ContextSpecific()) && tbs.Empty()
	if !ok {
		return nil
	}
	c := &Certificate{raw: data, tbs: signed, sealed: seal, issuer: issuer, subject: subject, public: public, serial: hexNumber(serial), fingerprint: sum}
	var okSubject bool
	c.issuerName, ok = quickName(issuer)
	c.name, okSubject = quickName(subject)
	c.signature = quickSignatures[string(algorithm)]
	ok = ok && okSubject && c.issuerName != "" && c.signature != x509.UnknownSignatureAlgorithm &&
		quickTime(&validity, &c.notBefore) && quickTime(&validity, &c.notAfter) && validity.Empty() &&
		c.quickKey(public) && c.quickExtensions(extensions)
	if c.name == "" && len(c.names) > 0 {
		c.name = c.names[0]
	}
	if !ok || c.name == "" || c.selfIssued() {
		return nil
	}
	return c
}

// natural reports whether these are the bytes of an INTEGER that is not negative, as short as DER wants it.
func natural(b []byte) bool {
	return len(b) > 0 && b[0] < 0x80 && (len(b) == 1 || b[0] != 0 || b[1] >= 0x80)
}

func hexNumber(b []byte) string {
	var buf [2 + 2*32]byte
	digits := bytes.TrimLeft(hex.AppendEncode(append(buf[:0], '0'), b), "0")
	if len(digits) == 0 {
		return "0x0"
	}
	return "0x" + string(digits)
}

// quickSignatures are the algorithms that need no parsing, by what is in their AlgorithmIdentifier (RFC 5758, RFC 4055, RFC 8410).
var quickSignatures = map[string]x509.SignatureAlgorithm{
	"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02":             x509.ECDSAWithSHA256,
	"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03":             x509.ECDSAWithSHA384,
	"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04":             x509.ECDSAWithSHA512,
	"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00": x509.SHA256WithRSA,
	"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c\x05\x00": x509.SHA384WithRSA,
	"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d\x05\x00": x509.SHA512WithRSA,
	"\x06\x03\x2b\x65\x70":                                 x509.PureEd25519,
}

// quickName is the common name in a Name, "" if it has none.
func quickName(name cryptobyte.String) (found string, ok bool) {
	var set, attribute, id, value cryptobyte.String
	if !name.ReadASN1(&name, der.SEQUENCE) {
		return "", false
	}
	for !name.Empty() {
		if !name.ReadASN1(&set, der.SET) {
			return "", false
		}
		for !set.Empty() {
			var tag der.Tag
			// Attributes of X.520 only: 2.5.4.n.
			ok := set.ReadASN1(&attribute, der.SEQUENCE) && attribute.ReadASN1(&id, der.OBJECT_IDENTIFIER) &&
				len(id) == 3 && id[0] == 0x55 && id[1] == 4 && id[2] < 0x80 &&
				attribute.ReadAnyASN1(&value, &tag) && attribute.Empty() && plainText(tag, value)
			if !ok {
				return "", false
			}
			if id[2] == 3 {
				found = string(value)
			}
		}
	}
	return found, true
}

func plainText(tag der.Tag, value []byte) bool {
	switch tag {
	case der.UTF8String:
		return utf8.Valid(value)
	case der.PrintableString:
		for _, b := range value {
			letter := b|0x20 >= 'a' && b|0x20 <= 'z'
			if !letter && (b < '0' || b > '9') && strings.IndexByte(" '()+,-./:=?", b) < 0 {
				return false
			}
		}
		return true
	}
	return false
}

// quickTime reads the one form of each type that RFC 5280 section 4.1.2.5 allows.
func quickTime(s *cryptobyte.String, out *time.Time) bool {
	var text cryptobyte.String
	var tag der.Tag
	if !s.ReadAnyASN1(&text, &tag) {
		return false
	}
	var n [7]int // century, year, month, day, hour, minute, second
	fields := n[:]
	switch {
	case tag == der.UTCTime && len(text) == 13:
		fields = n[1:]
	case tag != der.GeneralizedTime || len(text) != 15:
		return false
	}
	for i := range fields {
		a, b := text[2*i]-'0', text[2*i+1]-'0'
		if a > 9 || b > 9 {
			return false
		}
		fields[i] = int(10*a + b)
	}
	if tag == der.UTCTime {
		n[0] = 20
		if n[1] >= 50 {
			n[0] = 19
		}
	}
	*out = time.Date(100*n[0]+n[1], time.Month(n[2]), n[3], n[4], n[5], n[6], 0, time.UTC)
	// time.Date would make the 32nd the first.
	return text[len(text)-1] == 'Z' && n[2] >= 1 && n[2] <= 12 && n[3] >= 1 && out.Day() == n[3] && n[4] < 24 && n[5] < 60 && n[6] < 60
}

// quickCurves are the curves by what is in the AlgorithmIdentifier of a key (RFC 5480).
var quickCurves = map[string]struct {
	kind  keyKind
	curve ecdh.Curve
}{
	"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07": {keyKind{"ECDSA P-256", 256}, ecdh.P256()},
	"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22":             {keyKind{"ECDSA P-384", 384}, ecdh.P384()},
	"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23":             {keyKind{"ECDSA P-521", 521}, ecdh.P521()},
}

const (
	quickRSA     = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00"
	quickEdwards = "\x06\x03\x2b\x65\x70"
)

// quickKey reads a SubjectPublicKeyInfo. A point that is not on its curve is
// refused by crypto/x509, so it is looked at here too.
func (c *Certificate) quickKey(public cryptobyte.String) bool {
	var algorithm, numbers, modulus, exponent cryptobyte.String
	var key []byte
	if !public.ReadASN1(&public, der.SEQUENCE) || !public.ReadASN1(&algorithm, der.SEQUENCE) ||
		!public.ReadASN1BitStringAsBytes(&key) || !public.Empty() {
		return false
	}
	if string(algorithm) == quickEdwards {
		c.key = keyKind{algorithm: "Ed25519"}
		return len(key) == 32
	}
	if curve, ok := quickCurves[string(algorithm)]; ok {
		c.key = curve.kind
		_, err := curve.curve.NewPublicKey(key)
		return err == nil
	}
	numbers = key
	ok := string(algorithm) == quickRSA && numbers.ReadASN1(&numbers, der.SEQUENCE) &&
		numbers.ReadASN1(&modulus, der.INTEGER) && natural(modulus) &&
		numbers.ReadASN1(&exponent, der.INTEGER) && natural(exponent) && len(exponent) <= 4 && numbers.Empty()
	if !ok || string(exponent) == "\x00" || string(modulus) == "\x00" {
		return false
	}
	modulus = bytes.TrimLeft(modulus, "\x00")
	c.key = keyKind{"RSA", 8*(len(modulus)-1) + bits.Len8(modulus[0])}
	return true
}

// quickExtensions reads those that leaves usually have.
func (c *Certificate) quickExtensions(all cryptobyte.String) bool {
	var one, id, value cryptobyte.String
	if !all.ReadASN1(&all, der.SEQUENCE) {
		return false
	}
	var seen [16]string
	for n := 0; !all.Empty(); n++ {
		critical := false
		ok := n < len(seen) && all.ReadASN1(&one, der.SEQUENCE) && one.ReadASN1(&id, der.OBJECT_IDENTIFIER) && plainID(id) &&
			(!one.PeekASN1Tag(der.BOOLEAN) || one.ReadASN1Boolean(&critical)) && one.ReadASN1(&value, der.OCTET_STRING) && one.Empty()
		if !ok {
			return false
		}
		seen[n] = string(id)
		for _, before := range seen[:n] {
			if before == seen[n] {
				return false // twice: crypto/x509 refuses that
			}
		}
		if !c.quickExtension(id, critical, value) {
			return false
		}
	}
	return true
}

// plainID reports whether an object identifier is well-formed and has no very large numbers.
func plainID(id []byte) bool {
	length := 0
	for _, b := range id {
		if length++; length == 1 && b == 0x80 || length > 4 {
			return false
		}
		if b < 0x80 {
			length = 0
		}
	}
	return len(id) > 0 && length == 0
}

func (c *Certificate) quickExtension(id []byte, critical bool, value cryptobyte.String) bool {
	if len(id) != 3 || id[0] != 0x55 || id[1] != 0x1d {
		// crypto/x509 looks into authorityInfoAccess, and nothing else of this kind.
		return !critical && string(id) != "\x2b\x06\x01\x05\x05\x07\x01\x01"
	}
	var inner cryptobyte.String
	switch id[2] {
	case 14: // subject key identifier
		return !critical && value.ReadASN1(&inner, der.OCTET_STRING)
	case 15:
		var usage asn1.BitString
		ok := value.ReadASN1BitString(&usage)
		for i := range 9 {
			c.keyUsage |= x509.KeyUsage(usage.At(i) << i)
		}
		return ok
	case 17:
		c.hasNames = true
		return c.quickNames(value)
	case 19:
		return string(value) == "\x30\x00" || string(value) == "\x30\x03\x01\x01\x00" // no authority
	case 35: // authority key identifier
		return !critical && value.ReadASN1(&value, der.SEQUENCE) &&
			value.ReadASN1(&inner, der.Tag(0).ContextSpecific())
	case 37:
		return c.quickUsages(value)
	}
	return false
}

// quickNames reads alternative names in the order in which they are shown: DNS names first.
func (c *Certificate) quickNames(value cryptobyte.String) bool {
	var inner, name cryptobyte.String
	if !value.ReadASN1(&inner, der.SEQUENCE) {
		return false
	}
	for _, want := range [...]der.Tag{der.Tag(2).ContextSpecific(), der.Tag(7).ContextSpecific(), der.Tag(1).ContextSpecific()} {
		for rest := inner; !rest.Empty(); {
			var tag der.Tag
			// A URI ([6]) is worth a real parser.
			if !rest.ReadAnyASN1(&name, &tag) || tag == der.Tag(6).ContextSpecific() {
				return false
			}
			if tag == want && !c.quickAlternative(tag, name) {
				return false
			}
		}
	}
	return true
}

func (c *Certificate) quickAlternative(tag der.Tag, value []byte) bool {
	if tag == der.Tag(7).ContextSpecific() {
		c.names = append(c.names, net.IP(value).String())
		return len(value) == net.IPv4len || len(value) == net.IPv6len
	}
	for _, b := range value {
		if b >= utf8.RuneSelf {
			return false
		}
	}
	c.names = append(c.names, string(value))
	return true
}

// quickUse are the last bytes of the usages of RFC 5280 section 4.2.1.12.
var quickUse = [10]x509.ExtKeyUsage{
	1: x509.ExtKeyUsageServerAuth, 2: x509.ExtKeyUsageClientAuth, 3: x509.ExtKeyUsageCodeSigning,
	4: x509.ExtKeyUsageEmailProtection, 8: x509.ExtKeyUsageTimeStamping, 9: x509.ExtKeyUsageOCSPSigning,
}

func (c *Certificate) quickUsages(value cryptobyte.String) bool {
	var id cryptobyte.String
	if !value.ReadASN1(&value, der.SEQUENCE) {
		return false
	}
	for !value.Empty() {
		if !value.ReadASN1(&id, der.OBJECT_IDENTIFIER) || len(id) != 8 || string(id[:7]) != "\x2b\x06\x01\x05\x05\x07\x03" ||
			int(id[7]) >= len(quickUse) || quickUse[id[7]] == 0 {
			return false
		}
		c.usages = append(c.usages, quickUse[id[7]])
	}
	return true
}
