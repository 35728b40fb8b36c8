// Package dertest builds DER (X.690) that no library writes, for tests of parsers.
//
//	c := dertest.TakeApart(t, pair.Cert.RawTBSCertificate)
//	c[dertest.Serial] = dertest.Element(der.INTEGER)
//	data := c.Seal(t, issuer, c[dertest.Algorithm])
package dertest

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

// The elements of a TBSCertificate with all but the unique identifiers (RFC 5280 §4.1).
const (
	Version = iota
	Serial
	Algorithm
	Issuer
	Validity
	Subject
	PublicKey
	Extensions
	elements
)

// Pieces is a TBSCertificate in its elements, each with its tag and length.
type Pieces [elements][]byte

// TakeApart splits a TBSCertificate.
func TakeApart(t testing.TB, raw []byte) (out Pieces) {
	t.Helper()
	body, one := cryptobyte.String(raw), cryptobyte.String(nil)
	if !body.ReadASN1(&body, der.SEQUENCE) {
		t.Fatal("no sequence")
	}
	for i := range out {
		if !body.ReadAnyASN1Element(&one, nil) {
			t.Fatalf("no element %d", i)
		}
		out[i] = one
	}
	return out
}

// Seal returns the certificate of these pieces, signed by a pair. The algorithm is the
// outer one: it should equal the piece [Algorithm], but a test may want another.
func (c Pieces) Seal(t testing.TB, by *certtest.Pair, algorithm []byte) []byte {
	t.Helper()
	body := Sequence(c[:]...)
	sum := sha256.Sum256(body)
	signature, err := by.Key.Sign(rand.Reader, sum[:], nil)
	certtest.Must(t, err)
	return Sequence(body, algorithm, Element(der.BIT_STRING, []byte{0}, signature))
}

// Extend adds an extension (RFC 5280 §4.2).
func (c *Pieces) Extend(oid, value []byte, critical bool) {
	all := cryptobyte.String(c[Extensions])
	if !all.ReadASN1(&all, der.Tag(3).Constructed().ContextSpecific()) || !all.ReadASN1(&all, der.SEQUENCE) {
		panic("no extensions")
	}
	flag := []byte(nil)
	if critical {
		flag = Element(der.BOOLEAN, []byte{0xff})
	}
	more := Sequence(Element(der.OBJECT_IDENTIFIER, oid), flag, Octets(value))
	c[Extensions] = Element(der.Tag(3).Constructed().ContextSpecific(), Sequence(all, more))
}

// Only replaces all extensions by one that is not critical.
func (c *Pieces) Only(oid, value []byte) {
	one := Sequence(Element(der.OBJECT_IDENTIFIER, oid), Octets(value))
	c[Extensions] = Element(der.Tag(3).Constructed().ContextSpecific(), Sequence(one))
}

// Sequence returns a SEQUENCE of parts that are encoded.
func Sequence(parts ...[]byte) []byte { return Element(der.SEQUENCE, parts...) }

// Element returns parts that are encoded behind a tag and their length.
func Element(tag der.Tag, parts ...[]byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(bytes.Join(parts, nil)) })
	return b.BytesOrPanic()
}

// Number returns an INTEGER.
func Number(n int64) []byte {
	var b cryptobyte.Builder
	b.AddASN1Int64(n)
	return b.BytesOrPanic()
}

// Octets returns an OCTET STRING.
func Octets(content []byte) []byte { return Element(der.OCTET_STRING, content) }

// Explicit returns content behind the explicit tag [0].
func Explicit(content []byte) []byte {
	return Element(der.Tag(0).Constructed().ContextSpecific(), content)
}

// OID returns an OBJECT IDENTIFIER.
func OID(numbers ...int) []byte {
	var b cryptobyte.Builder
	b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier(numbers))
	return b.BytesOrPanic()
}

// IDData is id-data of CMS in DER (RFC 5652 §4).
var IDData = OID(1, 2, 840, 113549, 1, 7, 1)

// PFX returns a PKCS #12 store (RFC 7292 §4) with one safe that is not encrypted. Its
// bags are given, and what stands behind the safe: a MAC, or nothing.
func PFX(bags []byte, mac ...[]byte) []byte {
	safes := Sequence(Sequence(IDData, Explicit(Octets(bags))))
	return Sequence(append([][]byte{Number(3), Sequence(IDData, Explicit(Octets(safes)))}, mac...)...)
}
