// Package pemfile reads and writes PEM strictly. crypto/x509's helpers skip what
// they do not understand (AppendCertsFromPEM accepts a truncated bundle); here
// every block must parse and nothing may trail, so that a half-written file is
// an error and never half a truth. Standard library only.
package pemfile

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// PEM block types (RFC 7468 §4).
const (
	typeCertificate = "CERTIFICATE"
	typePKCS8       = "PRIVATE KEY"
	typeSEC1        = "EC PRIVATE KEY"
	typePKCS1       = "RSA PRIVATE KEY"
	typeECParams    = "EC PARAMETERS" // openssl ecparam -genkey writes it before the key
)

// ErrNoBlock reports input without any PEM block of the wanted type.
var ErrNoBlock = errors.New("no PEM block found")

// Certificates parses a chain or bundle in file order. Blocks of any other
// type, text that looks like a damaged block, and trailing bytes are errors;
// an input without certificates is [ErrNoBlock].
func Certificates(data []byte) ([]*x509.Certificate, error) {
	certs, key, err := parse(data)
	switch {
	case err != nil:
		return nil, err
	case key != nil:
		return nil, errors.New("private key among certificates")
	case len(certs) == 0:
		return nil, fmt.Errorf("%w: want CERTIFICATE", ErrNoBlock)
	}
	return certs, nil
}

// PrivateKey parses one key: PKCS#8, SEC 1 or PKCS#1, unencrypted. The error
// never holds key bytes.
func PrivateKey(data []byte) (crypto.Signer, error) {
	certs, key, err := parse(data)
	switch {
	case err != nil:
		return nil, err
	case len(certs) > 0:
		return nil, errors.New("certificate in a key file")
	case key == nil:
		return nil, fmt.Errorf("%w: want PRIVATE KEY", ErrNoBlock)
	}
	return key, nil
}

// Combined parses one file that holds a key and its chain, in any order.
func Combined(data []byte) ([]*x509.Certificate, crypto.Signer, error) {
	certs, key, err := parse(data)
	switch {
	case err != nil:
		return nil, nil, err
	case len(certs) == 0:
		return nil, nil, fmt.Errorf("%w: want CERTIFICATE", ErrNoBlock)
	case key == nil:
		return nil, nil, fmt.Errorf("%w: want PRIVATE KEY", ErrNoBlock)
	}
	return certs, key, nil
}

func parse(data []byte) (certs []*x509.Certificate, key crypto.Signer, err error) {
	for n := 1; ; n++ {
		block, rest := pem.Decode(data)
		skipped := data[:len(data)-len(rest)]
		if block == nil {
			skipped = data
		} else if i := bytes.LastIndex(skipped, []byte("-----BEGIN "+block.Type)); i >= 0 {
			// The last one: a damaged block of the same type may stand before it.
			skipped = skipped[:i]
		}
		// pem.Decode silently jumps over damaged blocks: whatever it jumped over must not look like one.
		if bytes.Contains(skipped, []byte("-----")) {
			return nil, nil, fmt.Errorf("damaged PEM before block %d", n)
		}
		if block == nil {
			if len(bytes.TrimSpace(data)) > 0 {
				return nil, nil, fmt.Errorf("%d bytes that are not PEM after block %d", len(bytes.TrimSpace(data)), n-1)
			}
			return certs, key, nil
		}
		data = rest
		switch block.Type {
		case typeCertificate:
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, nil, fmt.Errorf("parsing certificate in block %d: %w", n, err)
			}
			certs = append(certs, c)
		case typeECParams:
		case typePKCS8, typeSEC1, typePKCS1:
			if key != nil {
				return nil, nil, fmt.Errorf("second private key in block %d", n)
			}
			if key, err = parseKey(block); err != nil {
				return nil, nil, fmt.Errorf("parsing private key in block %d: %w", n, err)
			}
		default:
			return nil, nil, fmt.Errorf("unexpected PEM type %q in block %d", block.Type, n)
		}
	}
}

func parseKey(block *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch block.Type {
	case typePKCS8:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case typeSEC1:
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case typePKCS1:
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	if err != nil {
		// The standard library's text may quote what it found; a key file deserves less.
		return nil, errors.New("damaged, encrypted or of an unsupported kind")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%T cannot sign", key)
	}
	return signer, nil
}

// EncodeCertificates writes certificates in the given order.
func EncodeCertificates(certs []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&b, &pem.Block{Type: typeCertificate, Bytes: c.Raw}) // a Buffer does not fail
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

// Fits reports whether key is the private half of the certificate's key.
func Fits(cert *x509.Certificate, key crypto.Signer) bool {
	pub, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok {
		return false
	}
	k := key.Public()
	if p, ok := k.(*ecdsa.PublicKey); ok && p == nil {
		return false
	}
	return pub.Equal(k)
}

// Fingerprint is the SHA-256 of the certificate in lower-case hex, as step and openssl print it (without colons).
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// Names are all subject alternative names of a certificate, as text.
func Names(c *x509.Certificate) []string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	return append(names, c.EmailAddresses...)
}

// Serial is the serial number as this project shows it everywhere, and as
// "artstore-pki revoke" takes it: 0x and lower-case hex.
func Serial(c *x509.Certificate) string { return "0x" + c.SerialNumber.Text(16) }

// HexSerial is [Serial] for a serial in decimal, as the step API carries it;
// anything else comes back as it is.
func HexSerial(decimal string) string {
	n, ok := new(big.Int).SetString(decimal, 10)
	if !ok {
		return decimal
	}
	return "0x" + n.Text(16)
}
