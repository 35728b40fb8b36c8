// Package pkcs10 reads certificate requests (RFC 2986) in an order that bounds the cost of a
// request without a credential: the envelope first, then the cheap checks of the key, then
// one signature.
package pkcs10

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"strings"

	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/internal/pubkey"
)

// Decode reads the one PEM block of a certificate request (RFC 7468 §7). It
// parses nothing: that is for senders who have shown a credential. An error is a
// [denial.RequestError].
func Decode(text string) ([]byte, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || !strings.HasSuffix(block.Type, "CERTIFICATE REQUEST") || len(bytes.TrimSpace(rest)) > 0 {
		return nil, denial.BadRequest("csr: not one PEM certificate request")
	}
	return block.Bytes, nil
}

// Parse parses a request and checks it with [Check].
func Parse(der []byte) (*x509.CertificateRequest, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, denial.BadRequest("csr: it does not parse")
	}
	return csr, Check(csr)
}

// Check checks the key of a request and then the signature by it
// (proof of possession, RFC 2986 §4.2), once. The order bounds the cost. A key that is
// not sound is a [denial.Error], a wrong signature a [denial.RequestError].
func Check(csr *x509.CertificateRequest) error {
	if err := pubkey.Check(csr.PublicKey); err != nil {
		return denial.New(denial.SoundPublicKey, "the key of the request: %v", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return denial.BadRequest("csr: its signature is wrong")
	}
	return nil
}
