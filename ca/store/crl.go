package store

import (
	"context"
	"fmt"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record"
)

// RevocationMark returns the number of the last transaction that revoked, in any process.
// Revocations that are read up to a mark are complete up to it. The mark of a record that was
// removed or rolled back is an error: lists made from it would lack revocations.
func (s *Store) RevocationMark(ctx context.Context) (mark int64, err error) {
	if err := s.db.Intact(); err != nil {
		return 0, fmt.Errorf("reading the mark of revocations: %w", err)
	}
	if err = s.db.Read.QueryRowContext(ctx, `SELECT mark FROM revocation_mark WHERE id = 1`).Scan(&mark); err != nil {
		return 0, fmt.Errorf("reading the mark of revocations: %w", err)
	}
	return mark, nil
}

// RevokedBetween returns the certificates of a range that have not expired, the oldest
// revocation first. The caller adds them to the entries that it has from earlier calls.
func (s *Store) RevokedBetween(ctx context.Context, r record.RevokedRange) ([]record.RevokedEntry, error) {
	rows, err := s.db.Read.QueryContext(ctx, `SELECT serial, revoked_at, reason, not_after FROM revocations
		WHERE issuer = ? AND mark > ? AND mark <= ? AND not_after > ? ORDER BY mark, id`, r.Issuer, r.After, r.UpTo, millis(r.Now))
	if err != nil {
		return nil, fmt.Errorf("reading revocations: %w", err)
	}
	return sqldb.Collect(rows, func(l *record.RevokedEntry) error {
		var at, end int64
		err := rows.Scan(&l.Serial, &at, &l.Reason, &end)
		l.RevokedAt, l.NotAfter = fromMillis(at), fromMillis(end)
		return err
	})
}

// nextMark returns the number for the revocations of this transaction. The update locks the
// row, so no other transaction revokes until this one has ended. Every revocation takes a
// number, so this is where other processes are told.
func nextMark(ctx context.Context, tx *sqldb.Txn) (mark int64, err error) {
	if err = tx.QueryRowContext(ctx, `UPDATE revocation_mark SET mark = mark + 1 WHERE id = 1 RETURNING mark`).Scan(&mark); err != nil {
		return 0, fmt.Errorf("numbering a revocation: %w", err)
	}
	return mark, tx.Notify(ctx)
}
