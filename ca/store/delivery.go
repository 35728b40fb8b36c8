package store

import (
	"context"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record"
)

// ReportDelivery notes that a certificate is served, and reports whether it may be noted: the
// certificate is live at now, and of the lineage of the reporter. A report that repeats the one
// before changes nothing, so Since stays when that was proved first.
func (s *Store) ReportDelivery(ctx context.Context, d record.Delivery, now time.Time) (ok bool, err error) {
	err = s.db.Change(ctx, func(tx *sqldb.Txn) error {
		if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM certificates WHERE serial = ? AND lineage = ? AND not_after > ?)`,
			d.Serial, d.Lineage, millis(now)).Scan(&ok); err != nil || !ok {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO deliveries (certificate, address, servers, since)
			SELECT id, ?, ?, CASE WHEN issued_at > ? THEN issued_at ELSE ? END FROM certificates WHERE serial = ?
			ON CONFLICT (certificate) DO UPDATE SET address = excluded.address, servers = excluded.servers, since = excluded.since
			WHERE deliveries.address <> excluded.address OR deliveries.servers <> excluded.servers`,
			d.Address, d.Servers, millis(d.Since), millis(d.Since), d.Serial)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("recording a delivery: %w", err)
	}
	return ok, nil
}
