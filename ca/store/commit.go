package store

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/internal/pemfile"
)

// What a row of the record tells of. The first four are kinds of certificates.
const (
	Issued  = "issued"
	Renewed = "renewed"
	Rekeyed = "rekeyed"
	Own     = "own" // the authority's own server certificate
	revoked = "revoked"
	refused = "refused"
)

// Certificate is a certificate with what the record knows about it.
type Certificate struct {
	Serial      string      `json:"serial"` // decimal
	Service     string      `json:"service"`
	Kind        string      `json:"kind"` // Issued, Renewed, Rekeyed or Own
	Provisioner string      `json:"provisioner"`
	Caller      string      `json:"caller"`
	Lineage     string      `json:"lineage"`            // serial of the first certificate of a chain of renewals; its own for a first one
	Previous    string      `json:"previous,omitempty"` // serial of the certificate it renews
	Issuer      string      `json:"issuer"`             // subject key id of the issuing intermediate, hex
	KeyHash     string      `json:"key_hash"`           // SHA-256 of the SubjectPublicKeyInfo, hex
	Names       []string    `json:"names"`
	NotBefore   time.Time   `json:"not_before"`
	NotAfter    time.Time   `json:"not_after"`
	IssuedAt    time.Time   `json:"issued_at"`
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
		Names:     pemfile.Names(leaf),
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

// Token is a one-time token as the record keeps it.
type Token struct {
	Hash    [sha256.Size]byte // of issuer and id; the zero value means "no token"
	Expires time.Time         // after it, the row may be swept: the token is refused by its own claim
}

// Issue is what one commit makes true.
type Issue struct {
	Certificate Certificate
	Token       Token
	TrustDigest string // bundle in effect at the client, or empty
}

// Commit stores a certificate, the token spent on it, its lineage and the event,
// in one transaction, and returns the certificate to hand out.
//
// If the token was spent before on the same public key, that earlier certificate
// is returned and nothing is stored: the client lost the answer. On another key
// it is [ErrTokenUsed]. A renewal in a lineage with a revoked member is
// [ErrRevoked]; it is decided here, because a revocation may have come after the
// caller looked.
func (s *Store) Commit(ctx context.Context, issue Issue) (Certificate, error) {
	out := issue.Certificate
	err := s.change(ctx, func(tx *sql.Tx) error {
		spent, err := spentOn(ctx, tx, issue.Token)
		if err != nil {
			return err
		}
		if spent != "" {
			out, err = replay(ctx, tx, spent, issue.Certificate.KeyHash)
			return err
		}
		return insert(ctx, tx, issue)
	})
	if err != nil {
		return Certificate{}, fmt.Errorf("committing certificate %s: %w", issue.Certificate.Serial, err)
	}
	return out, nil
}

// Spent returns the certificate that a token was spent on, if it was spent on
// the given key; [ErrTokenUsed] if on another one; [ErrNotFound] if it is unused.
// It saves a signature; Commit decides.
func (s *Store) Spent(ctx context.Context, token Token, keyHash string) (Certificate, error) {
	serial, err := spentOn(ctx, s.read, token)
	if err != nil {
		return Certificate{}, err
	}
	if serial == "" {
		return Certificate{}, ErrNotFound
	}
	return replay(ctx, s.read, serial, keyHash)
}

// unknownCertificate stands for a token that was spent on something else than a certificate.
const unknownCertificate = "-"

// spentOn returns the serial a token was spent on, "" for an unused one.
func spentOn(ctx context.Context, q queryer, token Token) (serial string, err error) {
	if token == (Token{}) {
		return "", nil
	}
	err = q.QueryRowContext(ctx, `SELECT serial FROM used_tokens WHERE hash = ?`, token.Hash[:]).Scan(&serial)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("looking up the token: %w", err)
	case serial == "":
		return unknownCertificate, nil
	}
	return serial, nil
}

func replay(ctx context.Context, q queryer, serial, keyHash string) (Certificate, error) {
	c, err := get(ctx, q, serial)
	switch {
	case errors.Is(err, ErrNotFound), err == nil && c.KeyHash != keyHash:
		return Certificate{}, ErrTokenUsed
	case err != nil:
		return Certificate{}, err
	case c.Revocation != nil:
		return Certificate{}, ErrRevoked // a token must not bring back what was taken away
	}
	return c, nil
}

func insert(ctx context.Context, tx *sql.Tx, issue Issue) error {
	c := issue.Certificate
	if c.Lineage != c.Serial {
		bad, err := lineageRevoked(ctx, tx, c.Lineage)
		if err != nil {
			return err
		}
		if bad {
			return ErrRevoked
		}
	}
	names, err := json.Marshal(c.Names)
	if err != nil {
		return err
	}
	res, err := tx.ExecContext(ctx, `INSERT INTO certificates
		(serial, service, kind, provisioner, caller, lineage, previous, issuer, key_hash, names, not_before, not_after, issued_at, der, chain)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		c.Serial, c.Service, c.Kind, c.Provisioner, c.Caller, c.Lineage, c.Previous, c.Issuer, c.KeyHash, string(names),
		millis(c.NotBefore), millis(c.NotAfter), millis(c.IssuedAt), c.DER, notNil(c.Chain))
	if err != nil {
		return err
	}
	id, err := res.LastInsertId()
	if err != nil {
		return err
	}
	for _, name := range c.Names {
		if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO certificate_names (name, not_after, id) VALUES (?, ?, ?)`, name, millis(c.NotAfter), id); err != nil {
			return err
		}
	}
	if issue.Token != (Token{}) {
		if err := spend(ctx, tx, issue.Token, c.Serial); err != nil {
			return err
		}
	}
	if issue.TrustDigest != "" {
		if err := report(ctx, tx, c.Lineage, issue.TrustDigest); err != nil {
			return err
		}
	}
	return addEvent(ctx, tx, Event{At: c.IssuedAt, Kind: c.Kind, Caller: c.Caller, Service: c.Service, Serial: c.Serial})
}

func spend(ctx context.Context, tx *sql.Tx, token Token, serial string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO used_tokens (hash, expires, serial) VALUES (?, ?, ?)`, token.Hash[:], millis(token.Expires), serial)
	return err
}

// notNil keeps an empty chain (an issuer that is a root) from becoming NULL.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
