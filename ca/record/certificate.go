package record

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
)

// ErrNotFound reports that the record has no certificate, entry or key of that name.
var ErrNotFound = errors.New("not in the record")

// States of a certificate. One that is revoked and expired is revoked.
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
	Served      *Delivery   `json:"served,omitempty"` // nil if no agent has reported that it is served
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
		KeyHash:   certs.KeyHash(leaf.RawSubjectPublicKeyInfo),
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
