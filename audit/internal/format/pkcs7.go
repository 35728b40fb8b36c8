package format

import (
	"bytes"
	"encoding/asn1"
	"errors"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/artstore/artstore-pki/audit/internal/ber"
)

// PKCS #7 (RFC 2315), today CMS (RFC 5652), is the envelope in which Windows and Java
// deliver chains. Only its certificates are read. Its content and its signatures are not.

const typePKCS7 = "PKCS7"

var explicit0 = der.Tag(0).Constructed().ContextSpecific()

const oidSignedData = "1.2.840.113549.1.7.2"

var (
	errBadPKCS7    = errors.New("the PKCS #7 envelope is damaged")
	signedDataHead = []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2}
)

// isPKCS7 reports whether data begins as a ContentInfo with SignedData does (RFC 5652 §3).
func isPKCS7(head []byte) bool { return bytes.HasPrefix(ber.InSequence(head), signedDataHead) }

// parsePKCS7 reads the certificates of SignedData (RFC 5652 §5.1), in DER or in BER. They
// are a SET, so their order says nothing.
func parsePKCS7(data []byte, with *Context) (out []Part) {
	data, err := ber.Definite(data)
	if err != nil {
		return []Part{{Err: err}}
	}
	certs, ok := signedCertificates(data)
	for ok && !certs.Empty() {
		var cert cryptobyte.String
		var tag der.Tag
		if ok = certs.ReadAnyASN1Element(&cert, &tag); !ok || tag != der.SEQUENCE {
			continue // attribute certificates and obsolete forms (RFC 5652 §10.2.2)
		}
		c, err := with.Known.Parse(bytes.Clone(cert))
		out = append(out, Part{Block: len(out) + 1, Cert: c, Err: err, In: &Location{Loose: true}})
	}
	switch {
	case !ok:
		out = append(out, Part{Block: len(out) + 1, Err: errBadPKCS7})
	case len(out) == 0:
		out = []Part{{Err: ErrNoCert}}
	}
	return out
}

// signedCertificates returns the certificates of SignedData (RFC 5652 §5.1), one behind the
// other. It is false for an envelope of another shape.
func signedCertificates(data []byte) (certs cryptobyte.String, ok bool) {
	var info, content, signed, ignored cryptobyte.String
	var id asn1.ObjectIdentifier
	var version int
	var some bool
	input := cryptobyte.String(data)
	ok = input.ReadASN1(&info, der.SEQUENCE) && info.ReadASN1ObjectIdentifier(&id) && id.String() == oidSignedData &&
		info.ReadASN1(&content, explicit0) && content.ReadASN1(&signed, der.SEQUENCE) &&
		signed.ReadASN1Integer(&version) &&
		signed.ReadASN1(&ignored, der.SET) && // algorithms of digests
		signed.ReadASN1(&ignored, der.SEQUENCE) && // the content
		signed.ReadOptionalASN1(&certs, &some, explicit0)
	return certs, ok
}
