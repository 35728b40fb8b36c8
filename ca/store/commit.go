package store

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/internal/pemfile"
)

// What a row of the record tells of. The first five are kinds of certificates.
const (
	Issued  = "issued"
	Renewed = "renewed"
	Rekeyed = "rekeyed"
	Own     = "own"     // the authority's own server certificate
	Entered = "entered" // not issued by this record: entered to be revoked, see [Store.RevokeCertificate]
	revoked = "revoked"
	refused = "refused"
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
	Expires time.Time         // by its own claim, the same each time; after it the row may be swept
}

// Issue is what one commit makes true.
type Issue struct {
	Certificate Certificate
	Token       Token
	TrustDigest string // bundle in effect at the client, or empty
	Order       string // ACME order that this certificate is for, or empty; it becomes valid with it
	MaxLive     int    // refuse a first certificate if its service has this many live ones; 0 does not count
	MaxLineage  int    // refuse another certificate of a lineage that has this many live ones; 0 does not count
}

// Commit stores a certificate, the token spent on it, its lineage and the event,
// in one transaction, and returns the certificate to hand out.
//
// If the token was spent before on the same public key, that earlier certificate
// is returned and nothing is stored: the client lost the answer. On another key
// it is [ErrTokenUsed]. A renewal in a lineage with a revoked member is
// [ErrRevoked]; it is decided here, because a revocation may have come after the
// caller looked. A service that has issue.MaxLive live certificates gets no new
// lineage: [ErrTooMany]. A lineage that has issue.MaxLineage of them gets no other
// one: [ErrLineageFull].
func (s *Store) Commit(ctx context.Context, issue Issue) (Certificate, error) {
	c := issue.Certificate
	err := s.commit(ctx, issue)
	if errors.Is(err, errSpent) {
		if c, err = s.Spent(ctx, issue.Token, c.KeyHash); err == nil {
			return c, nil
		}
	}
	if err != nil {
		return Certificate{}, fmt.Errorf("committing certificate %s: %w", issue.Certificate.Serial, err)
	}
	return c, nil
}

// errSpent takes back a certificate whose token turned out to be spent.
var errSpent = errors.New("the token is spent")

func (s *Store) commit(ctx context.Context, issue Issue) error {
	r, err := newRow(issue)
	if err != nil {
		return err
	}
	s.recall(r)
	err = s.change(ctx, func(tx *txn) error { return r.insert(ctx, tx) })
	if err == nil && !r.known {
		s.remember(r)
	}
	return err
}

// Spent returns the certificate that a token was spent on, if it was spent on
// the given key; [ErrTokenUsed] if on another one; [ErrNotFound] if it is unused.
// Commit asks it when a token turns out to be spent.
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
func spentOn(ctx context.Context, q querier, token Token) (serial string, err error) {
	if token == (Token{}) {
		return "", nil
	}
	err = q.QueryRowContext(ctx, `SELECT serial FROM used_tokens WHERE expires = ? AND hash = ?`, millis(token.Expires), token.Hash[:]).Scan(&serial)
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

func replay(ctx context.Context, q querier, serial, keyHash string) (Certificate, error) {
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

// spend marks a token as used, or returns errSpent. The unique key decides among
// all processes: one that comes second waits for the commit of the first.
func spend(ctx context.Context, tx *txn, token Token, serial string) error {
	if token == (Token{}) {
		return nil
	}
	res, err := tx.ExecContext(ctx, `INSERT INTO used_tokens (expires, hash, serial) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`,
		millis(token.Expires), token.Hash[:], serial)
	if err != nil {
		return fmt.Errorf("spending a token: %w", err)
	}
	n, err := res.RowsAffected()
	if err == nil && n == 0 {
		return errSpent
	}
	return err
}
