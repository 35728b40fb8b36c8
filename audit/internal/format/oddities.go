package format

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/openssl"
	"github.com/artstore/artstore-pki/audit/internal/textencoding"
)

// neither returns the oddity of block n that no common program reads.
func neither(n int, why string) *cert.Oddity {
	return &cert.Oddity{Text: fmt.Sprintf("neither OpenSSL nor Go reads block %d: %s", n, why), UnreadByAll: true}
}

// oddBlock returns why another program does not read block n, or nil if all read it.
// encoding/pem has read it. The rules of OpenSSL concern the text before the block and
// the text of the block itself (package openssl).
func oddBlock(block *pem.Block, before, text []byte, n int) *cert.Oddity {
	isKey := slices.Contains(privateTypes, block.Type)
	trusted := block.Type == typeTrusted
	switch flaw := openssl.BlockFlaw(text); {
	case slices.Contains(cmsTypes, block.Type):
		return &cert.Oddity{Text: fmt.Sprintf("neither OpenSSL nor Go reads the certificates in block %d: it is an envelope (%s)", n, block.Type), NotPEM: true}
	case !isKey && !trusted && !slices.Contains(certTypes, block.Type):
		return nil
	case !isKey && openssl.Ends(before):
		return &cert.Oddity{Text: fmt.Sprintf("OpenSSL does not read block %d: a line that begins with a zero byte stands before it", n)}
	case len(block.Headers) > 0 && !isKey:
		return &cert.Oddity{Text: fmt.Sprintf("OpenSSL does not read block %d: it has headers", n)}
	case len(block.Headers) == 0 && flaw != "":
		return &cert.Oddity{Text: fmt.Sprintf("OpenSSL does not read block %d: %s", n, flaw)}
	case trusted:
		return oddTrust(block.Bytes, n)
	case block.Type == certTypes[0] || isKey:
		return nil
	case block.Type == certTypes[1]: // which OpenSSL knows as an old label
		return &cert.Oddity{Text: fmt.Sprintf("Go does not read block %d: its label is %s", n, block.Type)}
	}
	return neither(n, "its label is "+block.Type)
}

// oddTrust returns what is odd about a certificate in OpenSSL's own form: the DER of the
// certificate, and behind it the purposes that it is trusted for (openssl x509 -trustout).
// Go does not read the form. OpenSSL reads it and applies the purposes.
func oddTrust(content []byte, n int) *cert.Oddity {
	aux := cryptobyte.String(content)
	if !aux.SkipASN1(der.SEQUENCE) {
		return nil // the certificate itself is damaged, which its part says
	}
	sides := []string{"servers", "clients"}
	o := &cert.Oddity{Text: fmt.Sprintf("Go does not read block %d: its label is %s", n, typeTrusted), UnreadByAll: true}
	for i, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if openssl.Trusts(aux, use) {
			o.UnreadByAll = false
		} else {
			o.Text += "; OpenSSL does not trust it for TLS " + sides[i]
		}
	}
	return o
}

// Oddities of the encoding of a text.
const (
	inUTF16    = "the file is in UTF-16"
	behindMark = "a byte order mark stands before it"
)

// decoded returns the text of a file in UTF-8, and what is odd about its encoding: one of
// the constants above, or "".
func decoded(data []byte) (text []byte, odd string) {
	text = textencoding.UTF8(data)
	switch cut := len(data) - len(text); {
	case cut == 0:
		return text, ""
	case !bytes.HasSuffix(data, text):
		return text, inUTF16
	case bytes.HasPrefix(text, beginMarker):
		return text, behindMark
	}
	return text, "" // the mark stands on a line before the first block, which readers skip
}

// encodedOddly notes in each part of a file that its encoding is odd, unless the block
// itself is.
func encodedOddly(parts []Part, odd string) {
	for i := range parts {
		p := &parts[i]
		switch {
		case odd == "" || p.Oddity != nil:
		case odd == behindMark: // it hides the first block from Go, and no block from OpenSSL
			if i == 0 {
				p.Oddity = &cert.Oddity{Text: fmt.Sprintf("Go does not read block %d: %s", p.Block, odd), InText: true}
			}
		default:
			p.Oddity = neither(p.Block, odd)
			p.Oddity.InText = true
		}
	}
}

// oddForm notes in each part that the file is not PEM. A file with a key is a store, and
// the program that reads the store knows its form.
func oddForm(parts []Part, form string) {
	if slices.ContainsFunc(parts, func(p Part) bool { return p.IsKey }) {
		return
	}
	for i := range parts {
		if odd := parts[i].Oddity; odd == nil || odd.NotPEM {
			parts[i].Oddity = &cert.Oddity{Text: "it is " + form + ", and servers and clients read PEM", NotPEM: true}
		}
	}
}

// dropOddity drops oddities that do not matter inside a text of another kind: a program
// that takes PEM out of JSON has undone the indentation before. asItIs is the result of
// readAsItIs for the file; an entry of an object is judged by its own name.
func dropOddity(parts []Part, asItIs bool) []Part {
	for i := range parts {
		p := &parts[i]
		if p.Oddity == nil || !p.Oddity.InText {
			continue
		}
		kept := asItIs
		if p.In != nil && p.In.Entry != "" {
			kept = readAsItIs(p.In.Entry, nil)
		}
		if !kept {
			p.Oddity = nil
		}
	}
	return parts
}

// readAsItIs reports whether programs look for PEM in the file itself, and not in strings
// of JSON, XML or YAML. The ending of the name decides; without an ending, the first
// character does.
func readAsItIs(path string, data []byte) bool {
	switch ext := ending(filepath.Base(path)); {
	case ext == ".key", slices.Contains(certNames, ext):
		return true
	case ext != "":
		return false
	}
	start := bytes.TrimLeft(data[:min(len(data), sniffed)], "\xef\xbb\xbf\xff\xfe\x00 \t\r\n")
	return len(start) == 0 || !bytes.ContainsAny(start[:1], `{["<`)
}
