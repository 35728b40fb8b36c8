// Package certs has the questions about certificates that many packages ask: names, serial
// number and fingerprint of one, and which key and which issuer belong to it.
package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

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

// Fingerprint returns the SHA-256 of the certificate in lower-case hex, as step prints it, and
// openssl with colons.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// ErrFingerprint reports text that is no fingerprint of a certificate.
var ErrFingerprint = errors.New("want 64 hex digits (SHA-256)")

// ParseFingerprint returns a fingerprint as [Fingerprint] writes it. It accepts what
// people copy: upper case, colons, dashes, space around it. Everything else is
// [ErrFingerprint].
func ParseFingerprint(s string) (string, error) {
	fp := strings.ToLower(strings.NewReplacer(":", "", "-", "").Replace(strings.TrimSpace(s)))
	if b, err := hex.DecodeString(fp); err != nil || len(b) != sha256.Size {
		return "", fmt.Errorf("fingerprint %.80q: %w", s, ErrFingerprint)
	}
	return fp, nil
}

// KeyHash names a public key: SHA-256 of its DER SubjectPublicKeyInfo, hex.
func KeyHash(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// Pool returns a pool of these certificates alone. It is never nil: in a
// configuration of crypto/tls or crypto/x509 nil means the roots of the system, which
// peers in this house must not be verified against.
func Pool(all ...*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range all {
		pool.AddCert(c)
	}
	return pool
}

// Names returns all subject alternative names of a certificate as text.
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

// Serial returns the serial number as all parts of this project show it, and as
// "artstore-pki revoke" accepts it: 0x and lower-case hex.
func Serial(c *x509.Certificate) string { return "0x" + c.SerialNumber.Text(16) }

// HexSerial is [Serial] for a serial in decimal, as the step API carries it;
// any other text comes back as it is.
func HexSerial(decimal string) string {
	n, ok := new(big.Int).SetString(decimal, 10)
	if !ok {
		return decimal
	}
	return "0x" + n.Text(16)
}

// ParseSerial brings a serial to decimal, as the record and the step API have it. It takes
// decimal digits, hex after 0x, and hex with colons as openssl prints it.
func ParseSerial(s string) (string, error) {
	text, base := strings.TrimSpace(s), 10
	switch {
	case strings.HasPrefix(text, "0x"), strings.HasPrefix(text, "0X"):
		text, base = text[2:], 16
	case strings.Contains(text, ":"):
		text, base = strings.ReplaceAll(text, ":", ""), 16
	}
	n, ok := new(big.Int).SetString(text, base)
	// RFC 5280 §4.1.2.2: positive, at most 20 octets.
	if !ok || len(text) > 50 || strings.ContainsAny(text, "_+-") || n.Sign() <= 0 || n.BitLen() > 160 {
		return "", fmt.Errorf("serial %.60q: want decimal digits, 0x and hex, or hex with colons", s)
	}
	return n.String(), nil
}
