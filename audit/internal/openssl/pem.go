package openssl

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// BlockFlaw returns why OpenSSL (crypto/pem/pem_lib.c) does not read a block that
// encoding/pem reads, as a clause, or "". The text begins with the line of the marker and
// ends with the block.
func BlockFlaw(text []byte) string {
	for n := 0; len(text) > 0; n++ {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		// One empty line may follow the marker, because it ends the headers, of which there are none.
		if n > 1 && len(bytes.TrimSpace(line)) == 0 && len(bytes.TrimSpace(rest)) > 0 {
			return "there is a line without text in it"
		}
		text = rest
	}
	return ""
}

// Ends reports whether OpenSSL takes a line in the text before a block for the end of the
// file, so that it finds nothing behind it: one that begins with a zero byte.
func Ends(text []byte) bool {
	return bytes.HasPrefix(text, []byte{0}) || bytes.Contains(text, []byte("\n\x00"))
}

var (
	oidsOfUses = map[x509.ExtKeyUsage]asn1.ObjectIdentifier{
		x509.ExtKeyUsageServerAuth: {1, 3, 6, 1, 5, 5, 7, 3, 1},
		x509.ExtKeyUsageClientAuth: {1, 3, 6, 1, 5, 5, 7, 3, 2},
	}
	oidAnyUse = asn1.ObjectIdentifier{2, 5, 29, 37, 0}
)

// Trusts reports whether a root is trusted for a usage of TLS. aux stands behind the
// certificate in a block of the type TRUSTED CERTIFICATE (X509_CERT_AUX of
// crypto/x509/x_x509a.c): a list of trusted usages, and one of rejected usages. Without the
// first list, all usages that are not rejected are trusted. A damaged aux trusts nothing,
// because OpenSSL does not read it.
func Trusts(aux []byte, use x509.ExtKeyUsage) bool {
	rest := cryptobyte.String(aux)
	if rest.Empty() {
		return true
	}
	var fields, trust, reject cryptobyte.String
	var some bool
	if !rest.ReadASN1(&fields, der.SEQUENCE) || !rest.Empty() ||
		!fields.ReadOptionalASN1(&trust, &some, der.SEQUENCE) ||
		!fields.ReadOptionalASN1(&reject, nil, der.Tag(0).Constructed().ContextSpecific()) ||
		!fields.SkipOptionalASN1(der.UTF8String) || // a name that the owner has given
		!fields.SkipOptionalASN1(der.OCTET_STRING) || // an identifier of its key
		!fields.SkipOptionalASN1(der.Tag(1).Constructed().ContextSpecific()) || !fields.Empty() {
		return false
	}
	trusted, ok := identifiers(trust)
	rejected, sound := identifiers(reject)
	named := func(list []asn1.ObjectIdentifier) bool {
		return slices.ContainsFunc(list, func(id asn1.ObjectIdentifier) bool { return id.Equal(oidsOfUses[use]) || id.Equal(oidAnyUse) })
	}
	return ok && sound && !named(rejected) && (!some || named(trusted))
}

// identifiers reads a list of object identifiers.
func identifiers(list cryptobyte.String) (out []asn1.ObjectIdentifier, ok bool) {
	for !list.Empty() {
		var id asn1.ObjectIdentifier
		if !list.ReadASN1ObjectIdentifier(&id) {
			return nil, false
		}
		out = append(out, id)
	}
	return out, true
}
