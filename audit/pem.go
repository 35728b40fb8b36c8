package audit

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"regexp"
	"slices"

	"github.com/artstore/artstore-pki/internal/pemfile"
)

var (
	beginMarker  = []byte("-----BEGIN ")
	ourMarker    = regexp.MustCompile(`-----BEGIN ([A-Z0-9]+ )*(CERTIFICATE|PRIVATE KEY|PKCS7)-----`)
	certTypes    = []string{"CERTIFICATE", "X509 CERTIFICATE"}
	privateTypes = []string{"PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"}
)

func isPEM(head []byte) bool { return bytes.Contains(head, beginMarker) }

func parsePEM(data []byte, with *opening) (out []parsed) {
	plain := with.plain
	if len(data) > largeFile {
		plain = with.inPlace()
	}
	for n := 1; ; n++ {
		if p, rest, ok := plain(data); ok {
			p.block = n
			out = append(out, p)
			data = rest
			continue
		}
		block, rest := pem.Decode(data)
		// pem.Decode jumps over what it cannot read, in silence.
		skipped := data[:len(data)-len(rest)]
		if block != nil {
			skipped = skipped[:max(0, bytes.LastIndex(skipped, append(bytes.Clone(beginMarker), block.Type...)))]
		}
		if ourMarker.Match(skipped) || block == nil && ourMarker.Match(data) {
			out = append(out, parsed{block: n, err: fmt.Errorf("block %d is damaged or cut off", n)})
			n++
		}
		if block == nil {
			return out
		}
		for _, p := range parseBlock(block, with) {
			p.block = n
			out = append(out, p)
		}
		data = rest
	}
}

// plain reads the block at the beginning of data, if it is a plain one.
func (o *opening) plain(data []byte) (p parsed, rest []byte, ok bool) {
	der, rest, ok := plainBlock(data, nil)
	if ok {
		p.cert, p.err = o.certificate(der)
	}
	return p, rest, ok
}

// parseBlock reads what concerns an audit, and what inspect explains beside it; parameters do not.
func parseBlock(block *pem.Block, with *opening) []parsed {
	switch {
	case slices.Contains(certTypes, block.Type):
		c, err := with.certificate(block.Bytes)
		return []parsed{{cert: c, err: err}}
	case slices.Contains(privateTypes, block.Type):
		return []parsed{parseKey(block)}
	case block.Type == typePKCS7:
		return parsePKCS7(block.Bytes, with)
	case with.documents && documentTypes[block.Type] != nil:
		doc, err := documentTypes[block.Type](block.Bytes)
		return []parsed{{doc: doc, err: err}}
	}
	return nil
}

func parseKey(block *pem.Block) parsed {
	p := parsed{isKey: true}
	if _, encrypted := block.Headers["DEK-Info"]; encrypted {
		return p // a key all the same; it just cannot be compared
	}
	if len(block.Bytes) > pemfile.MaxKey {
		p.err = errLongKey
		return p
	}
	key, err := pemfile.PrivateKey(pem.EncodeToMemory(block))
	if err != nil {
		p.err = errBadKey // what is wrong with it may quote it
		return p
	}
	p.key = key.Public()
	return p
}
