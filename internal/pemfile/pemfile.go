// Package pemfile reads and writes PEM strictly. The functions of crypto/x509 skip blocks that
// they cannot read (AppendCertsFromPEM accepts a truncated bundle). Here each block must
// parse and nothing may follow the last one, so that a half-written file is an error and
// not a shorter list. Text may stand before a block and between two (RFC 7468 §2), if none
// of its lines begins like a block or its end.
package pemfile

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"unicode"
)

// PEM block types (RFC 7468 §4).
const (
	typeCertificate = "CERTIFICATE"
	typePKCS8       = "PRIVATE KEY"
	typeSEC1        = "EC PRIVATE KEY"
	typePKCS1       = "RSA PRIVATE KEY"
	typeCRL         = "X509 CRL"
	typeECParams    = "EC PARAMETERS" // openssl ecparam -genkey writes it before the key
)

// ErrNoBlock reports input without any PEM block of the wanted type.
var ErrNoBlock = errors.New("no PEM block found")

// content is everything that one input holds, in file order.
type content struct {
	certs  []*x509.Certificate
	key    crypto.Signer
	params bool // of a key that should follow
	lists  []*x509.RevocationList
}

// Certificates parses a chain or bundle in file order. Blocks of any other
// type, text that looks like a damaged block, and trailing bytes are errors;
// an input without certificates is [ErrNoBlock]. Explanatory text before a
// block is not: openssl writes it (RFC 7468 §2).
func Certificates(data []byte) ([]*x509.Certificate, error) {
	c, err := parse(data)
	switch {
	case err != nil:
		return nil, err
	case c.key != nil || c.params:
		return nil, errors.New("private key among certificates")
	case len(c.lists) > 0:
		return nil, errors.New("revocation list among certificates")
	case len(c.certs) == 0:
		return nil, fmt.Errorf("%w: want CERTIFICATE", ErrNoBlock)
	}
	return c.certs, nil
}

// PrivateKey parses one key: PKCS#8, SEC 1 or PKCS#1, unencrypted. The error
// never holds key bytes.
func PrivateKey(data []byte) (crypto.Signer, error) {
	c, err := parse(data)
	switch {
	case err != nil:
		return nil, err
	case len(c.certs) > 0:
		return nil, errors.New("certificate in a key file")
	case len(c.lists) > 0:
		return nil, errors.New("revocation list in a key file")
	case c.key == nil:
		return nil, fmt.Errorf("%w: want PRIVATE KEY", ErrNoBlock)
	}
	return c.key, nil
}

// Combined parses one file that holds a key and its chain, in any order.
func Combined(data []byte) ([]*x509.Certificate, crypto.Signer, error) {
	c, err := parse(data)
	switch {
	case err != nil:
		return nil, nil, err
	case len(c.lists) > 0:
		return nil, nil, errors.New("revocation list among certificates")
	case len(c.certs) == 0:
		return nil, nil, fmt.Errorf("%w: want CERTIFICATE", ErrNoBlock)
	case c.key == nil:
		return nil, nil, fmt.Errorf("%w: want PRIVATE KEY", ErrNoBlock)
	}
	return c.certs, c.key, nil
}

// RevocationLists parses lists, and the certificates of their issuers, which may stand between
// them in any order.
func RevocationLists(data []byte) ([]*x509.RevocationList, []*x509.Certificate, error) {
	c, err := parse(data)
	switch {
	case err != nil:
		return nil, nil, err
	case c.key != nil || c.params:
		return nil, nil, errors.New("private key among revocation lists")
	case len(c.lists) == 0:
		return nil, nil, fmt.Errorf("%w: want X509 CRL", ErrNoBlock)
	}
	return c.lists, c.certs, nil
}

func parse(data []byte) (c content, err error) {
	for n := 1; ; n++ {
		block, rest, err := next(data, n)
		if block == nil || err != nil {
			return c, err
		}
		data = rest
		if err := c.add(block, n); err != nil {
			return content{}, err
		}
	}
}

// next decodes block n. pem.Decode skips damaged blocks without an error, so the text that it
// has skipped must not look like a block. At the end, block is nil.
func next(data []byte, n int) (block *pem.Block, rest []byte, err error) {
	block, rest = pem.Decode(data)
	skipped := data[:len(data)-len(rest)]
	if block == nil {
		skipped = data
	} else if i := bytes.LastIndex(skipped, []byte("-----BEGIN "+block.Type)); i >= 0 {
		// The last marker, because a damaged block of the same type may stand before this one.
		skipped = skipped[:i]
	}
	switch trailing := len(bytes.TrimSpace(data)); {
	case marked(skipped):
		return nil, nil, fmt.Errorf("damaged PEM before block %d", n)
	case block == nil && trailing > 0:
		return nil, nil, fmt.Errorf("%d bytes that are not PEM after block %d", trailing, n-1)
	case bytes.IndexByte(skipped, 0) >= 0:
		// A file has zero bytes where its space was reserved and not written yet.
		return nil, nil, fmt.Errorf("zero bytes before block %d", n)
	}
	return block, rest, nil
}

// marked reports whether a line of text begins or ends a block: then it is a
// damaged one. Space and a byte order mark before it are no excuse, for there
// pem.Decode would pass over a block that is whole.
func marked(text []byte) bool {
	for line := range bytes.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		line = bytes.TrimLeftFunc(line, func(r rune) bool { return unicode.IsSpace(r) || r == '\ufeff' })
		if bytes.HasPrefix(line, []byte("-----BEGIN")) || bytes.HasPrefix(line, []byte("-----END")) {
			return true
		}
	}
	return false
}

func (c *content) add(block *pem.Block, n int) error {
	if len(block.Headers) > 0 { // RFC 7468 §2 has none; RFC 1421 marks encrypted keys with them
		return fmt.Errorf("PEM headers in block %d, as of an encrypted key", n)
	}
	if what := foreignTypes[block.Type]; what != "" {
		return fmt.Errorf("unexpected PEM type %q in block %d: it is %s", block.Type, n, what)
	}
	switch block.Type {
	case typeECParams:
		c.params = true
		return nil
	case typeCertificate, typePKCS8, typeSEC1, typePKCS1, typeCRL:
	default:
		return fmt.Errorf("unexpected PEM type %q in block %d", block.Type, n)
	}
	// Some of the parsers below stop at the end of the first value.
	var der asn1.RawValue
	if rest, err := asn1.Unmarshal(block.Bytes, &der); err == nil && len(rest) > 0 {
		return fmt.Errorf("%d bytes after the DER value in block %d", len(rest), n)
	}
	switch block.Type {
	case typeCertificate:
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("parsing certificate in block %d: %w", n, err)
		}
		c.certs = append(c.certs, cert)
	case typeCRL:
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return fmt.Errorf("parsing revocation list in block %d: %w", n, err)
		}
		c.lists = append(c.lists, list)
	default:
		if c.key != nil {
			return fmt.Errorf("second private key in block %d", n)
		}
		key, err := parseKey(block)
		if err != nil {
			return fmt.Errorf("parsing private key in block %d: %w", n, err)
		}
		c.key = key
	}
	return nil
}

// EncodeCertificates writes certificates in the given order.
func EncodeCertificates(certs []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&b, &pem.Block{Type: typeCertificate, Bytes: c.Raw}) // a Buffer does not fail
	}
	return b.Bytes()
}

// EncodeRevocationLists writes lists in the given order.
func EncodeRevocationLists(lists []*x509.RevocationList) []byte {
	var b bytes.Buffer
	for _, l := range lists {
		_ = pem.Encode(&b, &pem.Block{Type: typeCRL, Bytes: l.Raw}) // a Buffer does not fail
	}
	return b.Bytes()
}

// EncodePrivateKey writes a key as PKCS#8.
func EncodePrivateKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: typePKCS8, Bytes: der}), nil
}
