package ca

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"strings"

	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/internal/pubkey"
)

// requestDER reads the one PEM block of a certificate request (RFC 7468 §7). It
// parses nothing: that is for senders who have shown a credential.
func requestDER(text string) ([]byte, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || !strings.HasSuffix(block.Type, "CERTIFICATE REQUEST") || len(bytes.TrimSpace(rest)) > 0 {
		return nil, denial.BadRequest("csr: not one PEM certificate request")
	}
	return block.Bytes, nil
}

// parseRequest parses a request and checks it with [checkRequest].
func parseRequest(der []byte) (*x509.CertificateRequest, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, denial.BadRequest("csr: it does not parse")
	}
	return csr, checkRequest(csr)
}

// checkRequest checks the key of a request and then the signature by it
// (proof of possession), once. The order bounds the cost.
func checkRequest(csr *x509.CertificateRequest) error {
	if err := pubkey.Check(csr.PublicKey); err != nil {
		return denial.New(denial.SoundPublicKey, "the key of the request: %v", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return denial.BadRequest("csr: its signature is wrong")
	}
	return nil
}

// maxSoundKeys is how many RSA keys are remembered to have passed.
const maxSoundKeys = 10_000

// validateKey is [pubkey.Validate], the expensive half of checking a key, for callers
// who were authenticated. An RSA key that has passed is remembered, so that only the
// first certificate for it costs the test.
func (a *Authority) validateKey(key crypto.PublicKey) error {
	k, ok := key.(*rsa.PublicKey)
	if !ok {
		return pubkey.Validate(key)
	}
	id := sha256.Sum256(x509.MarshalPKCS1PublicKey(k))
	a.soundKeys.Lock()
	_, known := a.soundKeys.Get(id)
	a.soundKeys.Unlock()
	if known {
		return nil
	}
	if err := pubkey.Validate(key); err != nil {
		return err
	}
	a.soundKeys.Lock()
	defer a.soundKeys.Unlock()
	if _, known := a.soundKeys.Get(id); !known { // another request may have been faster
		a.soundKeys.Add(id, struct{}{}, maxSoundKeys)
	}
	return nil
}
