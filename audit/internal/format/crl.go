package format

import (
	"bytes"
	"crypto/x509"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/ber"
)

// maxListBytes bounds a list that is parsed, in bytes. It has room for some 50 000 entries.
const maxListBytes = 2 << 20

var errLargeList = cert.TooLargeError(fmt.Sprintf("the revocation list is larger than %d MiB", maxListBytes>>20))

// readList reads a revocation list (RFC 5280 §5), or a delta list (RFC 5280 §5.2.4). If
// crypto/x509 refuses the list, as it refuses version 1, the result is the error and a
// document with the dates, because an expired list is what an audit is for.
func readList(data []byte) (*cert.Document, error) {
	if len(data) > maxListBytes {
		return nil, errLargeList
	}
	l, err := x509.ParseRevocationList(bytes.Clone(data))
	if err != nil {
		return datesOfList(data), fmt.Errorf("parsing the revocation list: %w", err)
	}
	return cert.ListDocument(l), nil
}

// datesOfList reads the dates of a list by its beginning. It returns nil if data is no
// list: behind the issuer, a list has the time thisUpdate (RFC 5280 §5.1), and a
// certificate has a SEQUENCE of two times.
func datesOfList(data []byte) *cert.Document {
	var outer, tbs cryptobyte.String
	input := cryptobyte.String(data)
	if !input.ReadASN1(&outer, der.SEQUENCE) || !outer.ReadASN1(&tbs, der.SEQUENCE) ||
		!tbs.SkipOptionalASN1(der.INTEGER) || !tbs.SkipASN1(der.SEQUENCE) || !tbs.SkipASN1(der.SEQUENCE) {
		return nil
	}
	d := &cert.Document{What: cert.RevocationList, Name: cert.RevocationList}
	var is bool
	if d.From, is = ber.ReadTime(&tbs); !is {
		return nil
	}
	d.Until, _ = ber.ReadTime(&tbs) // it is optional
	return d
}
