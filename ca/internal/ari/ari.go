// Package ari has the words of ACME renewal information (RFC 9773): the name of a
// certificate in an address, and the answer. It looks nothing up.
//
//	id, err := ari.Parse(chi.URLParam(r, "id"))
//	info := ari.Info{Window: ari.Window{Start: from, End: to}}
//
// Invariants:
//
//   - Parse accepts one spelling of each name: what it accepts, [ID.String] returns
//     (FuzzParse).
package ari

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"math/big"
	"strings"
	"time"
)

// maxPart is the longest part of a name in bytes. A serial has 20 at most
// (RFC 5280 §4.1.2.2), a key identifier as many as its issuer likes; ours have 20.
const maxPart = 64

// ID names a certificate by its issuer and serial (RFC 9773 §4.1).
type ID struct {
	Issuer string // key identifier of the authority key identifier extension, lower-case hex
	Serial string // decimal
}

// Of returns the name of a certificate.
func Of(c *x509.Certificate) ID {
	return ID{hex.EncodeToString(c.AuthorityKeyId), c.SerialNumber.String()}
}

// ErrSyntax reports a text that is no name of a certificate.
var ErrSyntax = errors.New("not the name of a certificate: want base64url of the authority key identifier, a dot, and base64url of the serial number")

// Parse reads a name: base64url without padding of the key identifier, a dot, and base64url
// of the content of the serial's INTEGER. Its error is [ErrSyntax].
func Parse(text string) (ID, error) {
	left, right, ok := strings.Cut(text, ".")
	if !ok || len(text) > 4*maxPart {
		return ID{}, ErrSyntax
	}
	issuer, err := base64.RawURLEncoding.Strict().DecodeString(left)
	if err != nil || len(issuer) == 0 || len(issuer) > maxPart {
		return ID{}, ErrSyntax
	}
	serial, err := base64.RawURLEncoding.Strict().DecodeString(right)
	if err != nil || len(serial) == 0 || len(serial) > maxPart {
		return ID{}, ErrSyntax
	}
	n := new(big.Int).SetBytes(serial)
	if !bytes.Equal(content(n), serial) { // negative, or not the shortest form (X.690 §8.3.2)
		return ID{}, ErrSyntax
	}
	id := ID{hex.EncodeToString(issuer), n.String()}
	if id.String() != text { // a line end that base64 skips
		return ID{}, ErrSyntax
	}
	return id, nil
}

// content returns the content octets of a non-negative INTEGER: a leading zero keeps the
// first bit from being a sign.
func content(n *big.Int) []byte {
	b := n.Bytes()
	if len(b) == 0 || b[0]&0x80 != 0 {
		b = append([]byte{0}, b...)
	}
	return b
}

// String returns the name as it is in addresses. A value that Parse or Of has not made
// yields a text that is no name.
func (id ID) String() string {
	issuer, _ := hex.DecodeString(id.Issuer)
	n, ok := new(big.Int).SetString(id.Serial, 10)
	if !ok {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(issuer) + "." + base64.RawURLEncoding.EncodeToString(content(n))
}

// Window is when to renew: at a random moment of it, or at once if that is in the past.
type Window struct {
	Start time.Time `json:"start"`
	End   time.Time `json:"end"` // after Start
}

// Info answers a request for renewal information (RFC 9773 §4.2).
type Info struct {
	Window Window `json:"suggestedWindow"`
	// RetryAfter is when to ask again. It is a header of the answer.
	RetryAfter time.Duration `json:"-"`
}
