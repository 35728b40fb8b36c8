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

// tokenHead begins the compact form of a signed token (RFC 7515 section 7.1):
// header, claims and signature, the first two in JSON.
var tokenHead = regexp.MustCompile(`^\s*eyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+`)

func isToken(head []byte) bool { return tokenHead.Match(head[:min(len(head), sniffed)]) }

// claims are those of RFC 7519 and of enrolment tokens. A token is a secret while
// it lasts: only what is here is shown of it, never its signature, and of claims
// that are unknown their names.
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

// audience is one text or several (RFC 7519 section 4.1.3).
type audience []string

func (a *audience) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// numeric is a NumericDate: seconds, with a fraction or not (RFC 7519 section 2).
type numeric struct{ time.Time }

// endOfTime bounds dates that can be printed: the end of the year 9999.
const endOfTime = 253402300799

func (n *numeric) UnmarshalJSON(data []byte) error {
	var seconds float64
	if err := json.Unmarshal(data, &seconds); err != nil || seconds < 0 || seconds > endOfTime {
		return errBadToken
	}
	n.Time = time.Unix(int64(seconds), 0)
	return nil
}

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
		if err != nil || json.Unmarshal(content, into.what) != nil { // which would quote it
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
