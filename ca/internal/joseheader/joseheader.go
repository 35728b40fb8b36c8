// Package joseheader reads the protected header of a token or of a JWS (RFC 7515 §4)
// before the library that parses tokens. The library computes while it parses: it validates a
// private key in the header, and parses each certificate. So this package reads the header
// first, and refuses such members before the library sees them.
//
// Errors quote nothing of the token. They begin with "it", and the caller puts before them
// what "it" is.
package joseheader

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"

	"github.com/artstore/artstore-pki/internal/pubkey"
)

// Header is the protected header of a token or of a JWS (RFC 7515 §4), in JSON.
// Nothing in it is trusted.
type Header []byte

// Decode decodes a header from base64url.
func Decode(text string) (Header, error) {
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, errNoHeader
	}
	return data, nil
}

var errNoHeader = errors.New("its header is not base64url of a JSON object")

// Members are those of the header. Their names are compared exactly, as the library does.
func (h Header) Members() (all map[string]json.RawMessage, err error) {
	if json.Unmarshal(h, &all) != nil {
		return nil, errNoHeader
	}
	return all, nil
}

// mayHaveKey reports whether the header can have the member jwk: that needs its
// letters, or escapes for them. Most tokens need not be parsed for it.
func (h Header) mayHaveKey() bool {
	return bytes.Contains(h, []byte("jwk")) || bytes.IndexByte(h, '\\') >= 0
}

// Compact reads the header of a JWT (RFC 7519 §3), which has the compact form.
// The library would take JSON with several signatures too, and drop white space.
func Compact(text string) (Header, error) {
	if strings.Count(text, ".") != 2 || !onlyCompactForm(text) {
		return nil, errors.New("it does not have the compact form")
	}
	first, _, _ := strings.Cut(text, ".")
	h, err := Decode(first)
	if err != nil || !h.mayHaveKey() {
		return h, err
	}
	all, err := h.Members()
	if err != nil {
		return nil, err
	}
	if _, has := all["jwk"]; has {
		return nil, errors.New("its header has the member jwk, which no token needs here")
	}
	return h, nil
}

// compactForm are the characters of a compact form: base64url, and the dots between its parts.
var compactForm = func() (set [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") {
		set[c] = true
	}
	return set
}()

func onlyCompactForm(text string) bool {
	for i := range len(text) {
		if !compactForm[text[i]] {
			return false
		}
	}
	return true
}

// MaxChain is how many certificates a token may bring: a leaf, its root, and
// more intermediates between them than a PKI has.
const MaxChain = 8

// Certificates reads a member that holds a chain (RFC 7515 §4.1.6), at most so many
// of it. Each key in it is cheap to compute with; the first, which signs the token,
// is also of a kind that this authority issues for.
func (h Header) Certificates(member string, most int) ([]*x509.Certificate, error) {
	all, err := h.Members()
	if err != nil {
		return nil, err
	}
	var encoded []string
	if err := json.Unmarshal(all[member], &encoded); err != nil || len(encoded) == 0 {
		return nil, errors.New("it brings no certificate (header " + member + ")")
	}
	if len(encoded) > MaxChain {
		return nil, errors.New("it brings more certificates than a chain has (header " + member + ")")
	}
	var chain []*x509.Certificate
	for i, text := range encoded[:min(most, len(encoded))] {
		der, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, errors.New("a certificate in it is not base64")
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, errors.New("a certificate in it does not parse")
		}
		check := pubkey.Bounded
		if i == 0 {
			check = pubkey.Check
		}
		if err := check(cert.PublicKey); err != nil {
			return nil, errors.New("the key of a certificate in it was refused: " + err.Error())
		}
		chain = append(chain, cert)
	}
	return chain, nil
}
