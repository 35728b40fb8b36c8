package audit

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"

	"github.com/artstore/artstore-pki/internal/pemfile"
)

// Unlike package pemfile, which is for whoever will use what it parses, this
// goes on after a bad block: one damaged certificate must not hide the others.

var (
	errEmpty     = errors.New("the file is empty")
	errNoCert    = errors.New("there is no certificate in it")
	errBadKey    = errors.New("the private key is damaged or of an unsupported kind")
	errNeither   = errors.New("it is neither PEM nor a certificate in DER")
	beginMarker  = []byte("-----BEGIN ")
	ourMarker    = regexp.MustCompile(`-----BEGIN ([A-Z0-9]+ )*(CERTIFICATE|PRIVATE KEY)-----`)
	certTypes    = []string{"CERTIFICATE", "X509 CERTIFICATE"}
	privateTypes = []string{"PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"}
)

// parsed is one block of a file: a certificate, a key, or why it is neither;
// certificate and reason both for one that can be read in part only.
type parsed struct {
	block int
	cert  *x509.Certificate
	key   crypto.Signer // nil as well for one that is encrypted
	err   error
}

// parse reads everything that can be read. A file without PEM is taken for DER.
func parse(data []byte) []parsed {
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return []parsed{{err: errEmpty}}
	case bytes.Contains(data, beginMarker):
		return parsePEM(data)
	}
	c, err := parseCertificate(data)
	if c == nil {
		err = errNeither
	}
	return []parsed{{cert: c, err: err}}
}

func parsePEM(data []byte) (out []parsed) {
	for n := 1; ; n++ {
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
		if p, ok := parseBlock(block); ok {
			p.block = n
			out = append(out, p)
		}
		data = rest
	}
}

// parseBlock reads what concerns an audit; requests, lists and parameters do not.
func parseBlock(block *pem.Block) (p parsed, ok bool) {
	for _, t := range certTypes {
		if block.Type == t {
			c, err := parseCertificate(block.Bytes)
			return parsed{cert: c, err: err}, true
		}
	}
	for _, t := range privateTypes {
		if block.Type == t {
			key, err := pemfile.PrivateKey(pem.EncodeToMemory(block))
			if _, encrypted := block.Headers["DEK-Info"]; encrypted {
				err = nil // a key all the same; it just cannot be compared
			}
			if err != nil {
				err = errBadKey // what is wrong with it may quote it
			}
			return parsed{key: key, err: err}, true
		}
	}
	return parsed{}, false
}
