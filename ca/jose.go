package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"

	"github.com/artstore/artstore-pki/internal/pubkey"
)

// The library that parses tokens computes while it parses: it validates a private
// key in the header, and parses each certificate. So a header is read here first, and
// what has no business in it never reaches the library.

// joseHeader is the protected header of a token or of a JWS (RFC 7515 §4), in JSON.
// Nothing in it is trusted.
type joseHeader []byte

func decodeHeader(text string) (joseHeader, error) {
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, errNoHeader
	}
	return data, nil
}

var errNoHeader = errors.New("its header is not base64url of a JSON object")

// members are those of the header. Their names are compared exactly, as the library does.
func (h joseHeader) members() (all map[string]json.RawMessage, err error) {
	if json.Unmarshal(h, &all) != nil {
		return nil, errNoHeader
	}
	return all, nil
}

// mayHaveKey reports whether the header can have the member jwk: that needs its
// letters, or escapes for them. Most tokens need not be parsed for it.
func (h joseHeader) mayHaveKey() bool {
	return bytes.Contains(h, []byte("jwk")) || bytes.IndexByte(h, '\\') >= 0
}

// compactHeader reads the header of a JWT (RFC 7519 §3), which has the compact form.
// The library would take JSON with several signatures too, and drop white space.
func compactHeader(text string) (joseHeader, error) {
	if strings.Count(text, ".") != 2 || !onlyCompactForm(text) {
		return nil, errors.New("it does not have the compact form")
	}
	first, _, _ := strings.Cut(text, ".")
	h, err := decodeHeader(first)
	if err != nil || !h.mayHaveKey() {
		return h, err
	}
	all, err := h.members()
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

// maxTokenChain is how many certificates a token may bring: a leaf, its root, and
// more intermediates between them than a PKI has.
const maxTokenChain = 8

// certificates reads a member that holds a chain (RFC 7515 §4.1.6), at most so many
// of it. Each key in it is cheap to compute with; the first, which signs the token,
// is also of a kind that this authority issues for.
func (h joseHeader) certificates(member string, most int) ([]*x509.Certificate, error) {
	all, err := h.members()
	if err != nil {
		return nil, err
	}
	var encoded []string
	if err := json.Unmarshal(all[member], &encoded); err != nil || len(encoded) == 0 {
		return nil, errors.New("it brings no certificate (header " + member + ")")
	}
	if len(encoded) > maxTokenChain {
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

// checkFlattened wants the one form that ACME allows (RFC 8555 §6.2): a flattened JWS
// without an unprotected header. A private key in the header is refused here.
func checkFlattened(what string, body []byte) error {
	var form map[string]json.RawMessage
	var protected string
	if err := json.Unmarshal(body, &form); err != nil {
		return malformed("%s is not a JWS in JSON", what)
	}
	for member := range form {
		switch member {
		case "protected", "payload", "signature":
		case "header":
			return malformed("%s has a header that is not protected", what)
		default:
			return malformed("%s is not a JWS in JSON with one signature", what)
		}
	}
	if err := json.Unmarshal(form["protected"], &protected); err != nil {
		return malformed("%s is not a JWS in JSON", what)
	}
	var all map[string]json.RawMessage
	h, err := decodeHeader(protected)
	if err == nil {
		all, err = h.members()
	}
	if err != nil {
		return malformed("%s is not a JWS: %v", what, err)
	}
	if raw, has := all["jwk"]; has {
		return checkJWK("jwk", raw)
	}
	return nil
}

// checkJWK wants a JSON object without the members of a private or a symmetric key.
func checkJWK(what string, raw []byte) error {
	var key map[string]json.RawMessage
	if json.Unmarshal(raw, &key) != nil {
		return malformed("%s: not a JSON object", what)
	}
	for _, private := range []string{"d", "p", "q", "k"} { // RFC 7518 §6.2.2, §6.3.2, §6.4.1
		if _, has := key[private]; has {
			return malformed("%s: a private key must never be sent; make a new one", what)
		}
	}
	return nil
}
