package store

import (
	"context"
	"fmt"
	"time"
)

// Listed is a revocation as a list of its issuer tells it.
type Listed struct {
	Serial    string // decimal
	RevokedAt time.Time
	Reason    int       // RFC 5280 §5.3.1
	NotAfter  time.Time // of the certificate: beyond it the entry leaves the list
}

// RevocationMark grows with every transaction that revokes, by whatever process:
// what was read up to a mark is complete up to it.
// The mark of a record that was removed or rolled back is not told: lists made
// by it would lack revocations.
func (s *Store) RevocationMark(ctx context.Context) (mark int64, err error) {
	if err := s.intact(); err != nil {
		return 0, fmt.Errorf("reading the mark of revocations: %w", err)
	}
	if err = s.read.QueryRowContext(ctx, `SELECT mark FROM revocation_mark WHERE id = 1`).Scan(&mark); err != nil {
		return 0, fmt.Errorf("reading the mark of revocations: %w", err)
	}
	return mark, nil
}

// RevokedBetween returns the certificates of an issuer (subject key id, hex) that
// were revoked after one mark, up to another one inclusive, and have not expired
// at now; oldest revocation first. A list that is kept grows by them.
func (s *Store) RevokedBetween(ctx context.Context, issuer string, after, upTo int64, now time.Time) ([]Listed, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT serial, revoked_at, reason, not_after FROM revocations
		WHERE issuer = ? AND mark > ? AND mark <= ? AND not_after > ? ORDER BY mark, id`, issuer, after, upTo, millis(now))
	if err != nil {
		return nil, fmt.Errorf("reading revocations: %w", err)
	}
	return collect(rows, func(l *Listed) error {
		var at, end int64
		err := rows.Scan(&l.Serial, &at, &l.Reason, &end)
		l.RevokedAt, l.NotAfter = fromMillis(at), fromMillis(end)
		return err
	})
}

// nextMark numbers the revocations of one transaction. From here to its commit
// no other transaction revokes.
func nextMark(ctx context.Context, tx *txn) (mark int64, err error) {
	if err = tx.QueryRowContext(ctx, `UPDATE revocation_mark SET mark = mark + 1 WHERE id = 1 RETURNING mark`).Scan(&mark); err != nil {
		return 0, fmt.Errorf("numbering a revocation: %w", err)
	}
	return mark, nil
}
