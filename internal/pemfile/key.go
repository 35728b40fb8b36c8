package pemfile

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
)

// foreignTypes are types of blocks that people give in place of a key or a certificate.
var foreignTypes = map[string]string{
	"ENCRYPTED PRIVATE KEY":   "an encrypted private key",
	"OPENSSH PRIVATE KEY":     "a private key in the format of OpenSSH",
	"DSA PRIVATE KEY":         "a DSA key, which TLS 1.3 does not have",
	"PUBLIC KEY":              "a public key",
	"RSA PUBLIC KEY":          "a public key",
	"CERTIFICATE REQUEST":     "a request for a certificate",
	"NEW CERTIFICATE REQUEST": "a request for a certificate",
}

// MaxKey is the longest private key that is parsed, in bytes of DER. crypto/x509
// validates an RSA key while it parses it, and the cost grows with the square of its
// length. An RSA key of 8192 bits, the longest that crypto/tls uses, has 4.7 kB.
const MaxKey = 6 << 10

// parseKey tries the three encodings whatever the label says: openssl 3 writes
// PKCS#8 under labels that other tools then replace by the one they expect. One
// DER value is of one encoding at most.
func parseKey(block *pem.Block) (crypto.Signer, error) {
	if len(block.Bytes) > MaxKey {
		return nil, fmt.Errorf("it has %d bytes, more than the %d of any key in use", len(block.Bytes), MaxKey)
	}
	var key any
	var err error
	for _, parse := range []func([]byte) (any, error){
		x509.ParsePKCS8PrivateKey,
		func(der []byte) (any, error) { return x509.ParseECPrivateKey(der) },
		func(der []byte) (any, error) { return x509.ParsePKCS1PrivateKey(der) },
	} {
		if key, err = parse(block.Bytes); err == nil {
			break
		}
	}
	if err != nil {
		// The error of the standard library may quote the content, which is a key.
		return nil, errors.New(resembles(block.Bytes))
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%T cannot sign", key)
	}
	return signer, nil
}

// resembles says what the content of a block is that should be a private key.
func resembles(der []byte) string {
	var encrypted struct { // EncryptedPrivateKeyInfo (RFC 5958 §3)
		Algorithm struct {
			ID         asn1.ObjectIdentifier
			Parameters asn1.RawValue `asn1:"optional"`
		}
		Data []byte
	}
	if _, err := asn1.Unmarshal(der, &encrypted); err == nil {
		return "it is encrypted"
	}
	if bytes.HasPrefix(der, []byte("openssh-key-v1\x00")) {
		return "it is in the format of OpenSSH"
	}
	if _, err := x509.ParseCertificate(der); err == nil {
		return "it is a certificate"
	}
	if _, err := x509.ParsePKIXPublicKey(der); err == nil {
		return "it is a public key"
	}
	if _, err := x509.ParsePKCS1PublicKey(der); err == nil {
		return "it is a public key"
	}
	return "it is damaged or of an unsupported kind"
}
