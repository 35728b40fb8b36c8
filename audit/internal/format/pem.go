package format

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/artstore/artstore-pki/audit/internal/loosepem"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// The markers of PEM (RFC 7468 §3). ourMarker finds those of blocks that an audit reads.
var (
	beginMarker = []byte("-----BEGIN ")
	ourMarker   = regexp.MustCompile(`-----BEGIN ([A-Z0-9]+ )*(CERTIFICATE|PRIVATE KEY|PKCS7|PKCS12|CMS|PKCS #7 SIGNED DATA|X509 CRL)-----`)
)

// Labels of blocks: those of RFC 7468 §4, and others that programs write.
const (
	typeTrusted = "TRUSTED CERTIFICATE" // of openssl x509 -trustout: a certificate, and behind it its trusted purposes
	typeCRL     = "X509 CRL"
	typePKCS12  = "PKCS12"      // of certtool
	privateKey  = "PRIVATE KEY" // PKCS #8; the labels of all other private keys end with it
)

var (
	privateTypes = []string{privateKey, "EC PRIVATE KEY", "RSA PRIVATE KEY"}
	certTypes    = []string{"CERTIFICATE", "X509 CERTIFICATE", "X.509 CERTIFICATE"}
	cmsTypes     = []string{typePKCS7, "CMS", "PKCS #7 SIGNED DATA"}
	// otherTypes hold neither certificate nor key nor list.
	otherTypes = map[string]string{
		"CERTIFICATE REQUEST": "a certificate request", "NEW CERTIFICATE REQUEST": "a certificate request",
		"PUBLIC KEY": "a public key", "RSA PUBLIC KEY": "a public key",
		"DH PARAMETERS": "parameters of Diffie-Hellman", "X9.42 DH PARAMETERS": "parameters of Diffie-Hellman",
		"EC PARAMETERS": "parameters of a key", "DSA PARAMETERS": "parameters of a key",
	}
)

func isPEM(head []byte) bool { return bytes.Contains(head, beginMarker) }

// parsePEM reads all blocks of a text. pem.Decode skips text that it cannot read without
// saying so. Therefore the skipped text is searched for blocks that are indented, quoted
// or damaged (package loosepem): each becomes a part, with its number in the file.
func parsePEM(data []byte, with *Context) []Part {
	var out blocks
	large := len(data) > LargeFile
	for n := 1; ; n++ {
		block, rest := pem.Decode(data)
		used := data[:len(data)-len(rest)]
		skipped := data
		if block != nil {
			skipped = before(used, block)
		}
		if ourMarker.Match(skipped) {
			loose := parseLoose(skipped, n, with)
			for _, p := range loose {
				out.add(p)
			}
			n = max(n+1, loose[len(loose)-1].Block+1)
		}
		if block == nil {
			return holding(out.all())
		}
		if out.full(block.Type) {
			data = rest
			continue
		}
		odd := oddBlock(block, skipped, used[len(skipped):], n)
		for _, p := range parseBlock(block, with) {
			p.Block, p.Oddity = n, odd
			if large {
				p.putOff(used)
			}
			out.add(p)
		}
		data = rest
	}
}

const (
	// maxDamaged bounds the rows of damaged blocks of one file; the rest is counted.
	maxDamaged = 100
	// maxSlow bounds the private keys that are read of one file, and the lists: to read
	// one of them takes longer than its size suggests.
	maxSlow = 1000
)

// blocks collects the parts of a file in PEM, within the bounds above.
type blocks struct {
	parts   []Part
	damaged int            // blocks that could not be read
	slow    map[string]int // blocks that take long to read, by their kind
	others  bool           // there is a part that is no concern of an audit; one is enough
}

// full counts a block of a kind that takes long to read, and reports whether maxSlow
// blocks of that kind were read before.
func (b *blocks) full(label string) bool {
	var kind string
	switch {
	case label == typeCRL:
		kind = "revocation lists"
	case strings.HasSuffix(label, privateKey):
		kind = "private keys"
	default:
		return false
	}
	if b.slow == nil {
		b.slow = map[string]int{}
	}
	b.slow[kind]++
	return b.slow[kind] > maxSlow
}

// add keeps a part, unless enough parts like it are kept.
func (b *blocks) add(p Part) {
	switch {
	case p.Other != "" && b.others:
		return
	case p.Other != "":
		b.others = true
	case p.Err != nil && p.Cert == nil:
		if b.damaged++; b.damaged > maxDamaged {
			return
		}
	}
	b.parts = append(b.parts, p)
}

// all returns the parts, and for each bound that was reached a part that says how much
// was left out.
func (b *blocks) all() []Part {
	if more := b.damaged - maxDamaged; more > 0 {
		b.parts = append(b.parts, Part{Err: fmt.Errorf("%d more blocks could not be read", more)})
	}
	for _, kind := range slices.Sorted(maps.Keys(b.slow)) {
		if more := b.slow[kind] - maxSlow; more > 0 {
			b.parts = append(b.parts, Part{Err: fmt.Errorf("%d more %s were not read", more, kind)})
		}
	}
	return b.parts
}

// before returns what stands in text before the block that ends it. The last marker with
// the label of the block begins the block.
func before(text []byte, block *pem.Block) []byte {
	begin, at := []byte(string(beginMarker)+block.Type), 0
	for { // bytes.LastIndex takes ten times as long
		next := bytes.Index(text[at:], begin)
		if next < 0 {
			return text[:max(0, at-len(begin))]
		}
		at += next + len(begin)
	}
}

// parseLoose reads the blocks in a text that encoding/pem has skipped, and numbers them
// from n on. OpenSSL does not read them either. It returns one part at least: if no
// block can be read, the part says that block n is damaged.
func parseLoose(text []byte, n int, with *Context) (out []Part) {
	found, damaged := loosepem.Find(text)
	embedded := len(bytes.TrimSpace(text[:bytes.Index(text, beginMarker)])) > 0
	for _, b := range found {
		flaw := b.Flaw
		switch {
		case flaw != "":
		case b.Indented:
			flaw = "it is indented"
		default:
			flaw = "it does not stand on lines of its own"
		}
		odd := neither(n, flaw)
		odd.InText = b.Flaw == "" && (embedded || !b.Indented)
		for _, p := range parseBlock(b.Block, with) {
			p.Block, p.Oddity = n, odd
			out = append(out, p)
		}
		n++
	}
	if damaged > 0 || len(out) == 0 {
		out = append(out, Part{Block: n, Err: fmt.Errorf("block %d is damaged or cut off", n)})
	}
	return out
}

// holding removes the parts that are no concern of an audit. If there are only such
// parts, it keeps the first, so that the row can say what the file is.
func holding(parts []Part) []Part {
	i := slices.IndexFunc(parts, func(p Part) bool { return p.Other == "" })
	if i < 0 {
		return parts[:min(len(parts), 1)]
	}
	return slices.DeleteFunc(parts, func(p Part) bool { return p.Other != "" })
}

// putOff replaces a parsed leaf of a large file by its DER, which it writes over the text
// of its block. A bundle of thousands of leaves then costs its own size and no more.
// Authorities and keys stay parsed, because the other parts of the file need them.
func (p *Part) putOff(text []byte) {
	if p.Cert == nil || p.Err != nil || p.Cert.IsCA || len(p.Cert.Raw) > len(text) {
		return
	}
	n := copy(text, p.Cert.Raw)
	p.DER, p.Cert = text[:n:n], nil
}

// Wake parses a leaf whose parsing was put off, see [Part].DER. It sets Cert and Err.
func (o *Context) Wake(p *Part) {
	if p.DER != nil {
		p.Cert, p.Err = o.Known.Parse(p.DER)
	}
}

// parseBlock reads the content of one block by its label. A label that is not known and
// mentions certificates is an error; any other unknown label is no concern of an audit.
func parseBlock(block *pem.Block, with *Context) []Part {
	kind := block.Type
	switch {
	case slices.Contains(certTypes, kind):
		c, err := with.Known.Parse(block.Bytes)
		return []Part{{Cert: c, Err: err}}
	case kind == typeTrusted:
		cert, rest := cryptobyte.String(nil), cryptobyte.String(block.Bytes)
		if !rest.ReadASN1Element(&cert, der.SEQUENCE) {
			cert = block.Bytes
		}
		c, err := with.Known.Parse(cert)
		return []Part{{Cert: c, Err: err}}
	case slices.Contains(cmsTypes, kind):
		return parsePKCS7(block.Bytes, with)
	case kind == typePKCS12:
		return parsePKCS12(block.Bytes, with)
	case kind == typeOpenSSH:
		return []Part{parseOpenSSH(block)}
	case strings.HasSuffix(kind, privateKey):
		return []Part{parseKey(block)}
	case kind == typeCRL:
		doc, err := readList(block.Bytes)
		return []Part{{Document: doc, Err: err}}
	case with.Documents && documentTypes[kind] != nil:
		doc, err := documentTypes[kind](block.Bytes)
		return []Part{{Document: doc, Err: err}}
	case otherTypes[kind] != "":
		return []Part{{Other: otherTypes[kind]}}
	case strings.Contains(strings.ToUpper(kind), "CERTIFICATE") || strings.Contains(kind, "PKCS"):
		return []Part{{Err: fmt.Errorf("%q is not read; openssl asn1parse -in FILE shows what is in it", kind)}}
	}
	return []Part{{Other: fmt.Sprintf("%q", kind)}}
}

// parseKey reads the public half of a private key. An encrypted key (RFC 1421 §4.6.1.3:
// DEK-Info; RFC 5958 §3: ENCRYPTED PRIVATE KEY) and a key of another kind are keys without
// a public half. Errors of the parser are not passed on, because they may quote the key.
func parseKey(block *pem.Block) Part {
	p := Part{IsKey: true}
	if _, encrypted := block.Headers["DEK-Info"]; encrypted || !slices.Contains(privateTypes, block.Type) {
		p.Locked = encrypted || strings.Contains(block.Type, "ENCRYPTED")
		return p
	}
	if len(block.Bytes) > pemfile.MaxKey {
		p.Err = errLongKey
		return p
	}
	key, err := pemfile.PrivateKey(pem.EncodeToMemory(block))
	if err != nil {
		p.Err = errBadKey
		return p
	}
	p.Key = key.Public()
	return p
}
