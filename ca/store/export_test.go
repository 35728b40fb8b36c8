package store

import (
	"context"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record"
)

// Hooks for the external tests.

// CopiedTables and NotCopied are what [Copy] knows of.
var CopiedTables, NotCopied = tables, notCopied

// Tables are those of the schema, sorted.
func (s *Store) Tables(ctx context.Context) ([]string, error) {
	text := `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`
	if s.db.Postgres() {
		text = `SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()`
	}
	rows, err := s.db.Read.QueryContext(ctx, text)
	if err != nil {
		return nil, err
	}
	names, err := sqldb.Collect(rows, func(name *string) error { return rows.Scan(name) })
	slices.Sort(names)
	return names, err
}

// Txn is what a change is given.
type Txn = sqldb.Txn

// Change runs fn as the writing methods do.
func (s *Store) Change(ctx context.Context, fn func(*Txn) error) error { return s.db.Change(ctx, fn) }

// RevokeIn is the part of Revoke that runs in the transaction.
func RevokeIn(ctx context.Context, tx *Txn, req RevokeRequest) error { return revoke(ctx, tx, req) }

// Trusting counts the reports of trust, without the turn to write.
func (s *Store) Trusting(ctx context.Context) (n int, err error) {
	return n, s.db.Read.QueryRowContext(ctx, `SELECT COUNT(*) FROM trust_reports`).Scan(&n)
}

// Deliveries counts the certificates that are reported as served.
func (s *Store) Deliveries(ctx context.Context) (n int, err error) {
	return n, s.db.Read.QueryRowContext(ctx, `SELECT COUNT(*) FROM deliveries`).Scan(&n)
}

// Plan says how the database would find a page: one step a line. PostgreSQL is
// told to avoid what it would do with few rows, and does it only if it must.
func (s *Store) Plan(ctx context.Context, q record.Query) (string, error) {
	text, args, _, err := buildQuery(q)
	if err != nil {
		return "", err
	}
	return s.explain(ctx, text, args...)
}

// JoinPlan says how the database finds out whether a lineage takes one more certificate.
func (s *Store) JoinPlan(ctx context.Context) (string, error) {
	return s.explain(ctx, joinText, "1", "1", int64(0), 50)
}

func (s *Store) explain(ctx context.Context, text string, args ...any) (string, error) {
	var steps []string
	err := s.db.Change(ctx, func(tx *sqldb.Txn) error {
		if !tx.Concurrent {
			rows, err := tx.QueryContext(ctx, `EXPLAIN QUERY PLAN `+text, args...)
			if err != nil {
				return err
			}
			var id, parent, unused int
			steps, err = sqldb.Collect(rows, func(step *string) error { return rows.Scan(&id, &parent, &unused, step) })
			return err
		}
		if _, err := tx.ExecContext(ctx, `SELECT set_config(name, 'off', true) FROM unnest(ARRAY['enable_seqscan', 'enable_sort', 'enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin']) name`); err != nil {
			return err
		}
		rows, err := tx.QueryContext(ctx, `EXPLAIN `+text, args...)
		if err != nil {
			return err
		}
		steps, err = sqldb.Collect(rows, func(step *string) error { return rows.Scan(step) })
		return err
	})
	return strings.Join(steps, "\n"), err
}

// DB is the database that the record is in.
func (s *Store) DB() *sqldb.DB { return s.db }
