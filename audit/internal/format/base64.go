package format

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
)

// Certificates are stored in Base64 without the lines of PEM: in files of their own, in
// JSON Web Keys (RFC 7517 §4.7), in metadata of SAML and in property lists of Apple.
// Programs that pass on values of Kubernetes store whole PEM texts in Base64.

const (
	// maxEncoded bounds what is decoded of one file, in bytes.
	maxEncoded = 8 << 20
	// maxJSON bounds a file whose JSON is decoded whole, in bytes.
	maxJSON = 1 << 20

	// elementXML begins an element that may hold a certificate.
	elementXML = `(X509Certificate(?:\s[^>]*)?|<data)>`
)

var (
	errLongBase64 = fmt.Errorf("it is larger than %d MiB, too much for one certificate in Base64", maxEncoded>>20)
	errLargeJSON  = fmt.Errorf("it is larger than %d MiB, too much for a set of keys", maxJSON>>20)
	errBadJSON    = errors.New("it is no JSON")

	armourInBase64 = regexp.MustCompile(`LS0tLS1CRUdJTi[A-Za-z0-9+/]+={0,2}`) // "-----BEGIN "
	certificateXML = regexp.MustCompile(elementXML + `([A-Za-z0-9+/=\s]+)</`)
	beginOfXML     = regexp.MustCompile(elementXML + `\s*MI`)
	x5cMember      = regexp.MustCompile(`^\s*\{(?s:.*)"x5c"\s*:`)
)

// isBase64 reports whether data consists of Base64 (RFC 4648 §4) and white space, and
// decodes to one of the binary formats. DER of more than 127 bytes begins with "MI".
func isBase64(head []byte) bool {
	head = bytes.TrimSpace(head[:min(len(head), sniffed)])
	if !bytes.HasPrefix(head, []byte("MI")) || bytes.ContainsFunc(head, notBase64) {
		return false
	}
	start, err := base64.StdEncoding.DecodeString(string(head[:min(len(head), 32)&^3]))
	return err == nil && firstOf(binaryFormats, start) != nil
}

// notBase64 reports whether a character is neither Base64 nor white space.
func notBase64(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '+' && r != '/' && r != '=' &&
		r != '\n' && r != '\r' && r != ' ' && r != '\t'
}

// parseBase64 reads a file that is one value in Base64.
func parseBase64(data []byte, with *Context) []Part {
	if len(data) > maxEncoded {
		return []Part{{Err: errLongBase64}}
	}
	content, err := unwrapped(data)
	if err != nil {
		return []Part{{Err: errBadBase64}}
	}
	return parseAs(binaryFormats, content, with)
}

// unwrapped decodes Base64 with line breaks anywhere, and with or without padding.
func unwrapped(text []byte) ([]byte, error) {
	text = bytes.Join(bytes.Fields(text), nil)
	return base64.RawStdEncoding.DecodeString(string(bytes.TrimRight(text, "=")))
}

// isArmourInBase64 reports whether a PEM text in Base64 stands somewhere in data.
func isArmourInBase64(head []byte) bool { return armourInBase64.Match(head) }

// parseArmourInBase64 reads PEM in Base64 wherever it stands in a text, such as the
// acme.json of Traefik.
func parseArmourInBase64(data []byte, with *Context) (out []Part) {
	for n, text := range armourInBase64.FindAll(data, -1) {
		content, err := unwrapped(text)
		parts := []Part{{Err: errBadBase64}}
		if err == nil {
			parts = parsePEM(content, with)
		}
		for _, p := range parts {
			in := Location{Object: fmt.Sprintf("value %d", n+1)}
			if p.In != nil {
				in.Loose, in.Locked = p.In.Loose, p.In.Locked
			}
			p.In = &in
			out = append(out, p)
		}
	}
	return out
}

// isXML reports whether an element begins with what may be a certificate in Base64.
func isXML(head []byte) bool { return beginOfXML.Match(head) }

// parseXML reads the certificates in XML signatures and in metadata of SAML (XML Signature
// §4.5.4), and those in data elements of Apple's property lists. A data element may hold
// anything, so one that is in no binary format is passed over.
func parseXML(data []byte, with *Context) (out []Part) {
	for _, m := range certificateXML.FindAllSubmatch(data, -1) {
		content, err := unwrapped(m[2])
		parts := []Part{{Err: errBadBase64}}
		switch isList := string(m[1]) == "<data"; {
		case isList && (err != nil || firstOf(binaryFormats, content) == nil):
			continue
		case err == nil:
			parts = parseAs(binaryFormats, content, with)
		}
		for _, p := range parts {
			p.Block, p.In = len(out)+1, &Location{Loose: true}
			out = append(out, p)
		}
	}
	return out
}

// isJWKS reports whether data is a JSON object with a chain of a key in it.
func isJWKS(head []byte) bool { return x5cMember.Match(head) }

// parseJWKS reads the chains of JSON Web Keys (RFC 7517 §4.7), wherever they stand in a
// document. A trust bundle of SPIFFE is a set of such keys. Each chain is an object.
func parseJWKS(data []byte, with *Context) (out []Part) {
	if len(data) > maxJSON {
		return []Part{{Err: errLargeJSON}}
	}
	var whole any
	if json.Unmarshal(data, &whole) != nil { // its error would quote the file
		return []Part{{Err: errBadJSON}}
	}
	names := map[string]int{}
	eachChain(whole, func(kid string, chain []any) {
		in := &Location{Object: unique(names, kid), Entry: "x5c"}
		for i, one := range chain {
			text, _ := one.(string)
			p := Part{Block: i + 1, Err: errBadBase64, In: in}
			if content, err := unwrapped([]byte(text)); err == nil && len(content) > 0 {
				p.Cert, p.Err = with.Known.Parse(content)
			}
			out = append(out, p)
		}
	})
	return out
}

// eachChain visits the chains of keys in decoded JSON, in the order of the names of members.
func eachChain(v any, visit func(kid string, chain []any)) {
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			eachChain(one, visit)
		}
	case map[string]any:
		if chain, ok := v["x5c"].([]any); ok {
			kid, _ := v["kid"].(string)
			visit(kid, chain)
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			eachChain(v[name], visit)
		}
	}
}
