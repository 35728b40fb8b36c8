package record

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
)

// ErrNotFound reports that the record has no such thing.
var ErrNotFound = errors.New("not in the record")

// States of a certificate. Revoked wins over expired: it is the fact that
// somebody will look for.
const (
	StateValid   = "valid"
	StateExpired = "expired"
	StateRevoked = "revoked"
)

// Certificate is a certificate with what the record knows about it.
type Certificate struct {
	Serial      string      `json:"serial"` // decimal
	Service     string      `json:"service"`
	Kind        string      `json:"kind"` // Issued, Renewed, Rekeyed, Own or Entered
	Provisioner string      `json:"provisioner"`
	Caller      string      `json:"caller"`
	Lineage     string      `json:"lineage"`            // serial of the first certificate of a chain of renewals; its own for a first one
	Previous    string      `json:"previous,omitempty"` // serial of the certificate it renews
	Issuer      string      `json:"issuer"`             // subject key id of the issuing intermediate, hex
	KeyHash     string      `json:"key_hash"`           // SHA-256 of the SubjectPublicKeyInfo, hex
	Names       []string    `json:"names"`
	NotBefore   time.Time   `json:"not_before"`
	NotAfter    time.Time   `json:"not_after"`
	IssuedAt    time.Time   `json:"issued_at"`            // of Entered: when it was entered
	ProofUntil  time.Time   `json:"proof_until,omitzero"` // end of the proof that it rests on, which renewals inherit; zero: it has none
	DER         []byte      `json:"der"`
	Chain       []byte      `json:"chain"` // concatenated DER of the intermediates, issuer first
	Revocation  *Revocation `json:"revocation,omitempty"`
}

// NewCertificate fills in everything that the chain itself says: leaf first,
// then intermediates. Service, Kind, Provisioner, Caller and, for renewals,
// Lineage and Previous are the caller's to set.
func NewCertificate(chain []*x509.Certificate, issuedAt time.Time) Certificate {
	leaf := chain[0]
	c := Certificate{
		Serial:    leaf.SerialNumber.String(),
		Lineage:   leaf.SerialNumber.String(),
		Issuer:    hex.EncodeToString(leaf.AuthorityKeyId),
		KeyHash:   KeyHash(leaf.RawSubjectPublicKeyInfo),
		NotBefore: leaf.NotBefore.UTC(),
		NotAfter:  leaf.NotAfter.UTC(),
		IssuedAt:  issuedAt.UTC(),
		Names:     certs.Names(leaf),
		DER:       leaf.Raw,
	}
	for _, i := range chain[1:] {
		c.Chain = append(c.Chain, i.Raw...)
	}
	return c
}

// KeyHash names a public key: SHA-256 of its DER SubjectPublicKeyInfo, hex.
func KeyHash(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// State says what the certificate is at the given moment.
func (c *Certificate) State(now time.Time) string {
	switch {
	case c.Revocation != nil:
		return StateRevoked
	case !now.Before(c.NotAfter):
		return StateExpired
	}
	return StateValid
}

// ParseSerial brings a serial to the decimal form of the record. It takes
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
