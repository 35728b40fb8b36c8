package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/certrow"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record"
)

// Token is a one-time token as the record keeps it.
type Token struct {
	Hash    [sha256.Size]byte // of issuer and id; the zero value means "no token"
	Expires time.Time         // its own claim, so it is the same each time; the row may be swept afterwards
}

// Issuance is what one commit stores.
type Issuance struct {
	Certificate record.Certificate
	Token       Token
	// Report is what the client says of its trust bundle: Reporter, Digest, At and Due. An empty
	// Digest says nothing.
	Report record.TrustReport
	// TrustVersion is the version of the trust that the certificate was signed under. If it is
	// not the newest one, the certificate is refused. 0 is no check.
	TrustVersion int64
	// Order is the id of the ACME order that the certificate is for, or "". The order becomes
	// valid in the same transaction.
	Order string
	// MaxLive refuses a first certificate if its service has this many live ones. 0 is no
	// limit, and saves the query.
	MaxLive int
	// MaxLineage refuses a renewal if its lineage has this many live certificates. 0 is no limit.
	MaxLineage int
}

// Commit stores a certificate, the token spent on it, its lineage and the event,
// in one transaction, and returns the certificate to hand out.
//
// If the token was spent before on the same public key, that earlier certificate
// is returned and nothing is stored: the client lost the answer. On another key
// it is [ErrTokenUsed]. A renewal in a lineage with a revoked member is
// [ErrRevoked]; the transaction checks it, because a revocation may have been committed
// after the caller checked. A service that has issue.MaxLive live certificates gets no
// new lineage: [ErrTooMany]. A lineage that has issue.MaxLineage of them gets no other
// one: [ErrLineageFull]. A certificate that was signed under a version of the trust that is
// over is [ErrTrustChanged].
func (s *Store) Commit(ctx context.Context, issue Issuance) (record.Certificate, error) {
	c := issue.Certificate
	err := s.commit(ctx, issue)
	if errors.Is(err, errSpent) {
		if c, err = s.Spent(ctx, issue.Token, c.KeyHash); err == nil {
			return c, nil
		}
	}
	if err != nil {
		return record.Certificate{}, fmt.Errorf("committing certificate %s: %w", issue.Certificate.Serial, err)
	}
	return c, nil
}

// errSpent undoes a commit whose token was spent before.
var errSpent = errors.New("the token is spent")

func (s *Store) commit(ctx context.Context, issue Issuance) error {
	r, err := newRow(issue)
	if err != nil {
		return err
	}
	s.cachedIDs(r)
	err = s.db.Change(ctx, func(tx *sqldb.Txn) error { return r.insert(ctx, tx) })
	if err == nil && !r.known {
		s.cacheIDs(r)
	}
	return err
}

// Spent returns the certificate that a token was spent on, if it was spent on
// the given key; [ErrTokenUsed] if on another one; [record.ErrNotFound] if it is unused.
// Commit calls it when a token was spent before.
func (s *Store) Spent(ctx context.Context, token Token, keyHash string) (record.Certificate, error) {
	serial, err := spentOn(ctx, s.db.Read, token)
	if err != nil {
		return record.Certificate{}, err
	}
	if serial == "" {
		return record.Certificate{}, record.ErrNotFound
	}
	return replay(ctx, s.db.Read, serial, keyHash)
}

// unknownCertificate stands for a token that was spent on a revocation. It is no serial, so
// no certificate is found for it.
const unknownCertificate = "-"

// spentOn returns the serial a token was spent on, "" for an unused one.
func spentOn(ctx context.Context, q sqldb.Querier, token Token) (serial string, err error) {
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

// replay returns the certificate that a token was spent on, if it is for the same key.
func replay(ctx context.Context, q sqldb.Querier, serial, keyHash string) (record.Certificate, error) {
	found, err := certrow.Find(ctx, q, serial)
	c := found.Certificate
	switch {
	case errors.Is(err, record.ErrNotFound), err == nil && c.KeyHash != keyHash:
		return record.Certificate{}, ErrTokenUsed
	case err != nil:
		return record.Certificate{}, err
	case c.Revocation != nil:
		return record.Certificate{}, ErrRevoked // a token must not hand out a revoked certificate again
	}
	return c, nil
}

// spend marks a token as used, or returns errSpent. The unique key of the table decides
// between processes: an insert of the same key waits for the commit of the first one.
func spend(ctx context.Context, tx *sqldb.Txn, token Token, serial string) error {
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
