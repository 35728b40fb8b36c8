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

func neither(n int, why string) *cert.Oddity {
	return &cert.Oddity{Text: fmt.Sprintf("neither OpenSSL nor Go reads block %d: %s", n, why), UnreadByAll: true}
}

// oddBlock judges block n, which encoding/pem reads, by the text before it and its own.
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

// oddTrust judges what stands behind a certificate in OpenSSL's own form.
func oddTrust(content []byte, n int) *cert.Oddity {
	aux := cryptobyte.String(content)
	if !aux.SkipASN1(der.SEQUENCE) {
		return nil // there is no certificate
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

// What is odd in how a text is encoded.
const (
	inUTF16    = "the file is in UTF-16"
	behindMark = "a byte order mark stands before it"
)

// decoded is the text of a file, and what is odd in how it is encoded: one of these, or "".
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
	return text, "" // a byte order mark on a line that is passed over
}

// encodedOddly notes for each part of a file how that is encoded.
func encodedOddly(parts []Part, odd string) {
	for i := range parts {
		p := &parts[i]
		switch {
		case odd == "" || p.Oddity != nil:
		case odd == behindMark: // OpenSSL passes over it, and the blocks behind the first are found
			if i == 0 {
				p.Oddity = &cert.Oddity{Text: fmt.Sprintf("Go does not read block %d: %s", p.Block, odd), InText: true}
			}
		default:
			p.Oddity = neither(p.Block, odd)
			p.Oddity.InText = true
		}
	}
}

// oddForm notes that a file is not PEM.
func oddForm(parts []Part, form string) {
	if slices.ContainsFunc(parts, func(p Part) bool { return p.IsKey }) { // it is a store
		return
	}
	for i := range parts {
		if odd := parts[i].Oddity; odd == nil || odd.NotPEM {
			parts[i].Oddity = &cert.Oddity{Text: "it is " + form + ", and servers and clients read PEM", NotPEM: true}
		}
	}
}

// dropOddity drops what is odd in parts that are no file of their own. Whether the file
// is read as it is must be known before it is parsed; an entry goes by its own name.
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

// readAsItIs reports whether programs are to find certificates or a key in a file with
// this name as it is, and not in the strings of another language. Of a name that does not
// say so, the beginning decides.
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
