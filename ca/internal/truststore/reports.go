package truststore

import (
	"context"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/tally"
	"github.com/artstore/artstore-pki/ca/record"
)

// MaxReports is how many processes may report with the certificates of one lineage at a time.
// Those beyond it are one row, which says that somebody has a bundle that is not known.
const MaxReports = 16

// reporterOf returns what tells the process of a report apart from others of its lineage.
func reporterOf(r record.TrustReport) string {
	if r.Reporter == "" {
		return r.Serial + "/" + r.Digest
	}
	return r.Reporter
}

// WriteReport stores a report in place of the one before of the same process.
func WriteReport(ctx context.Context, tx *sqldb.Txn, r record.TrustReport) error {
	res, err := tx.ExecContext(ctx, `UPDATE trust_reports SET serial = ?, successor = ?, trust_digest = ?, reported_at = ?, due = ? WHERE lineage = ? AND reporter = ?`,
		r.Serial, r.Successor, r.Digest, sqldb.Millis(r.At), sqldb.Millis(r.Due), r.Lineage, reporterOf(r))
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n > 0 {
		return err
	}
	return insertReport(ctx, tx, r)
}

// insertReport stores the first report of a process, in place of what is overdue.
func insertReport(ctx context.Context, tx *sqldb.Txn, r record.TrustReport) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM trust_reports WHERE lineage = ? AND due < ?`, r.Lineage, sqldb.Millis(r.At)); err != nil {
		return err
	}
	var n int
	if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM trust_reports WHERE lineage = ?`, r.Lineage).Scan(&n); err != nil {
		return err
	}
	key := reporterOf(r)
	if n >= MaxReports {
		key, r.Digest = "", ""
	}
	if err := tally.Reported(ctx, tx, r.Lineage); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO trust_reports (lineage, reporter, serial, successor, trust_digest, reported_at, due) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (lineage, reporter) DO UPDATE SET serial = excluded.serial, successor = excluded.successor, trust_digest = excluded.trust_digest,
		reported_at = excluded.reported_at, due = excluded.due`,
		r.Lineage, key, r.Serial, r.Successor, r.Digest, sqldb.Millis(r.At), sqldb.Millis(r.Due))
	return err
}

// Counting returns the reports of one lineage that say what is in effect now. A report counts
// until its process, or the one that has its next certificate, has reported again, or until
// it is overdue and another process has reported. So the last report of a lineage counts for
// as long as there is no other.
func Counting(reports []record.TrustReport) []record.TrustReport {
	var newest time.Time
	shown := map[string]time.Time{} // when a certificate was shown last
	for _, r := range reports {
		if r.At.After(newest) {
			newest = r.At
		}
		if r.At.After(shown[r.Serial]) {
			shown[r.Serial] = r.At
		}
	}
	var out []record.TrustReport
	for _, r := range reports {
		replaced := r.Successor != "" && shown[r.Successor].After(r.At)
		overdue := r.Due.Before(newest) && r.At.Before(newest)
		if !replaced && !overdue {
			out = append(out, r)
		}
	}
	return out
}

func reports(ctx context.Context, q sqldb.Querier, now time.Time) (map[string][]record.TrustReport, error) {
	rows, err := q.QueryContext(ctx, `SELECT t.lineage, t.reporter, t.serial, t.successor, t.trust_digest, t.reported_at, t.due FROM trust_reports t
		WHERE EXISTS (SELECT 1 FROM certificates c WHERE c.lineage = t.lineage AND c.not_after > ?) ORDER BY t.lineage, t.reporter`, sqldb.Millis(now))
	if err != nil {
		return nil, err
	}
	list, err := sqldb.Collect(rows, func(r *record.TrustReport) error {
		var at, due int64
		err := rows.Scan(&r.Lineage, &r.Reporter, &r.Serial, &r.Successor, &r.Digest, &at, &due)
		r.At, r.Due = sqldb.FromMillis(at), sqldb.FromMillis(due)
		return err
	})
	out := map[string][]record.TrustReport{}
	for _, r := range list {
		out[r.Lineage] = append(out[r.Lineage], r)
	}
	if err != nil {
		return nil, fmt.Errorf("reading reports: %w", err)
	}
	return out, nil
}
