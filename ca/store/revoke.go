package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/artstore/artstore-pki/ca/internal/certrow"
	"github.com/artstore/artstore-pki/ca/internal/eventlog"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
)

// RevokeRequest is one revocation.
type RevokeRequest struct {
	record.Revocation
	Token Token // spent in the same transaction, if set
}

// Revoke marks a certificate as revoked and records who did it, in one
// transaction. An unknown serial is [record.ErrNotFound], a second time
// [ErrAlreadyRevoked], a spent token [ErrTokenUsed].
func (s *Store) Revoke(ctx context.Context, req RevokeRequest) error {
	err := s.db.Change(ctx, func(tx *sqldb.Txn) error { return revoke(ctx, tx, req) })
	if errors.Is(err, errSpent) {
		err = ErrTokenUsed
	}
	if err != nil {
		return fmt.Errorf("revoking %s: %w", req.Serial, err)
	}
	return nil
}

func revoke(ctx context.Context, tx *sqldb.Txn, req RevokeRequest) error {
	if err := spend(ctx, tx, req.Token, ""); err != nil {
		return err
	}
	mark, err := nextMark(ctx, tx)
	if err != nil {
		return err
	}
	found, err := certrow.Find(ctx, tx, req.Serial)
	if err != nil {
		return err
	}
	// A renewal that has the lock commits before this revocation. One that waits for the lock
	// sees the revocation and is refused.
	if err := lockService(ctx, tx, found.Certificate.Service); err != nil {
		return err
	}
	return addRevocation(ctx, tx, newRevocation{found, req.Revocation, mark})
}

// RevokeCertificate is [Store.Revoke] for a certificate that may be missing in the record, as
// after a restore. It is entered first then, in the same transaction. The caller must have
// checked that this authority issued it, and that c.Service and c.Issuer are right. If the
// record has another certificate with this serial, the error is [ErrSerialTaken].
func (s *Store) RevokeCertificate(ctx context.Context, c record.Certificate, r record.Revocation) error {
	c.Kind, c.Caller, c.IssuedAt = kinds.Entered, r.Caller, r.RevokedAt
	row, err := newRow(Issuance{Certificate: c})
	if err != nil {
		return fmt.Errorf("revoking %s: %w", c.Serial, err)
	}
	s.cachedIDs(row)
	err = s.db.Change(ctx, func(tx *sqldb.Txn) error { return row.enterAndRevoke(ctx, tx, r) })
	if err != nil {
		return fmt.Errorf("revoking %s: %w", c.Serial, err)
	}
	return nil
}

// enterAndRevoke enters the certificate, if it is not there, and revokes it.
func (r *certificateRow) enterAndRevoke(ctx context.Context, tx *sqldb.Txn, revocation record.Revocation) error {
	c := r.issue.Certificate
	// The mark comes first, as in each revocation. Its lock also keeps two callers from
	// entering the same certificate.
	mark, err := nextMark(ctx, tx)
	if err != nil {
		return err
	}
	have, err := certrow.Find(ctx, tx, c.Serial)
	if errors.Is(err, record.ErrNotFound) {
		if err := r.insert(ctx, tx); err != nil {
			return err
		}
		have, err = certrow.Find(ctx, tx, c.Serial)
	}
	switch {
	case err != nil:
		return err
	case !bytes.Equal(have.Certificate.DER, c.DER):
		return ErrSerialTaken
	}
	if err := lockService(ctx, tx, have.Certificate.Service); err != nil {
		return err
	}
	return addRevocation(ctx, tx, newRevocation{have, revocation, mark})
}

// newRevocation is a revocation of a certificate that has a row.
type newRevocation struct {
	of   certrow.Stored
	why  record.Revocation
	mark int64 // of the transaction
}

func addRevocation(ctx context.Context, tx *sqldb.Txn, n newRevocation) error {
	c, r := n.of.Certificate, n.why
	res, err := tx.ExecContext(ctx, `INSERT INTO revocations (certificate, serial, lineage, issuer, not_after, revoked_at, reason, note, caller, mark)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		n.of.ID, c.Serial, c.Lineage, c.Issuer, millis(c.NotAfter), millis(r.RevokedAt), r.Reason, r.Note, r.Caller, n.mark)
	if err != nil {
		return fmt.Errorf("inserting the revocation: %w", err)
	}
	if rows, err := res.RowsAffected(); err != nil || rows == 0 {
		return errors.Join(err, ErrAlreadyRevoked)
	}
	made := eventlog.Revocation{Revocation: r, Lineage: c.Lineage, Issuer: c.Issuer, NotAfter: c.NotAfter, Mark: n.mark}
	made.Serial = c.Serial
	_, err = eventlog.Append(ctx, tx, record.Event{At: r.RevokedAt, Kind: kinds.Revoked, Caller: r.Caller, Service: c.Service, Serial: c.Serial, Detail: r.Note}, made.Digest())
	return err
}

// LineageRevoked reports whether any certificate of a lineage was revoked. If a thief has
// renewed a stolen certificate, revoking the stolen one must end the renewed one too.
func (s *Store) LineageRevoked(ctx context.Context, lineage string) (bool, error) {
	if err := s.db.Stopped(); err != nil {
		return false, err
	}
	return lineageRevoked(ctx, s.db.Read, lineage)
}

func lineageRevoked(ctx context.Context, q sqldb.Querier, lineage string) (found bool, err error) {
	if err = q.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM revocations WHERE lineage = ?)`, lineage).Scan(&found); err != nil {
		return false, fmt.Errorf("looking up lineage %s: %w", lineage, err)
	}
	return found, nil
}
