package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/jws"
)

// maxToken bounds a token, in bytes.
const maxToken = 64 << 10

var errBadToken = errors.New("the token is damaged")

// tokenHead matches the beginning of a signed token in its compact form (RFC 7515 §7.1):
// header and claims are JSON objects, whose Base64 begins with "eyJ".
var tokenHead = regexp.MustCompile(`^\s*eyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+`)

// isToken reports whether data begins as a token does.
func isToken(head []byte) bool { return tokenHead.Match(head[:min(len(head), sniffed)]) }

// claims are those of RFC 7519 §4.1, and those of enrolment tokens (sans and sha). A token
// is a secret until it expires. Therefore a report shows these claims only: of other
// claims it shows the names, and of the signature nothing.
type claims struct {
	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub"`
	Audience  audience `json:"aud"`
	Expires   numeric  `json:"exp"`
	NotBefore numeric  `json:"nbf"`
	Issued    numeric  `json:"iat"`
	Names     []string `json:"sans"`
	Root      string   `json:"sha"`
}

// audience is one string or several (RFC 7519 §4.1.3).
type audience []string

// UnmarshalJSON reads either form.
func (a *audience) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// numeric is a NumericDate: seconds, with or without a fraction (RFC 7519 §2).
type numeric struct{ time.Time }

// endOfTime is the last second of the year 9999. Later dates have no form in RFC 3339.
const endOfTime = 253402300799

// UnmarshalJSON drops the fraction. Its error does not quote the value.
func (n *numeric) UnmarshalJSON(data []byte) error {
	var seconds float64
	if err := json.Unmarshal(data, &seconds); err != nil || seconds < 0 || seconds > endOfTime {
		return errBadToken
	}
	n.Time = time.Unix(int64(seconds), 0)
	return nil
}

// parseToken reads a file with one token. An audit passes over tokens: it returns no part
// unless documents are wanted.
func parseToken(data []byte, with *Context) []Part {
	if !with.Documents {
		return nil
	}
	if len(data) > maxToken {
		return []Part{{Err: errBadToken}}
	}
	d, err := readToken(string(bytes.TrimSpace(data)))
	return []Part{{Document: d, Err: err}}
}

// readToken reads a token without verifying it. All its errors are errBadToken, because the
// errors of encoding/json quote the token.
func readToken(text string) (*cert.Document, error) {
	parts, ok := jws.Split(text)
	if !ok {
		return nil, errBadToken
	}
	var header struct {
		Algorithm string `json:"alg"`
	}
	var c claims
	var all map[string]json.RawMessage
	for _, into := range []struct {
		part string
		what any
	}{{parts.Header, &header}, {parts.Payload, &c}, {parts.Payload, &all}} {
		content, err := jws.Decode(into.part)
		if err != nil || json.Unmarshal(content, into.what) != nil {
			return nil, errBadToken
		}
	}
	d := &cert.Document{What: "token", Name: c.Subject, From: c.NotBefore.Time, Until: c.Expires.Time}
	if d.Name == "" {
		d.Name = "nobody"
	}
	d.Add("names", "%s", strings.Join(c.Names, ", "))
	d.Add("issuer", "%s", c.Issuer)
	d.Add("audience", "%s", strings.Join(c.Audience, ", "))
	if !c.Issued.IsZero() {
		d.Add("issued", "%s", humantime.Stamp(c.Issued.Time))
	}
	d.Add("root", "%s", c.Root)
	d.Add("signature", "%s, not judged", header.Algorithm)
	d.Add("also has", "%s", strings.Join(unknownClaims(all), ", "))
	if header.Algorithm == "none" || parts.Signature == "" {
		d.Flaws = append(d.Flaws, cert.Flaw{Check: "bad-signature", Text: "it is not signed: everyone can make one like it"})
	}
	return d, nil
}

// unknownClaims returns the sorted names of the claims that are not shown.
func unknownClaims(all map[string]json.RawMessage) (out []string) {
	known := []string{"iss", "sub", "aud", "exp", "nbf", "iat", "sans", "sha"}
	for name := range all {
		if !slices.Contains(known, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
