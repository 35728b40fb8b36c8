package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/eventlog"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/translog"
)

// tables are the tables of a record, each after those that it refers to. A table that is not
// listed is not copied; TestEveryTableIsCopied compares the list with both schemas.
var tables = []string{
	"trust_versions", "authorities", "issuers", "chains", "certificates", "certificate_names", "used_tokens", "revocations", "trust_reports", "deliveries",
	"events", "log_pending", "log_entries", "log_nodes", "log_state",
	seeded, "secrets", "acme_nonces", "acme_eab_keys", "acme_accounts", "acme_orders", "acme_authorizations", "acme_challenges",
	"renewal_orders", "tally_state", "tallies", "holders", "fingerprints",
}

// seeded is the table to which a migration adds a row. A copy replaces this row.
const seeded = "revocation_mark"

// notCopied are tables about the database itself: the version of its schema, and the row
// that [Store.Ready] writes.
var notCopied = []string{"goose_db_version", "heartbeat"}

// Errors of [Copy] that callers match.
var (
	ErrNotEmpty = eventlog.ErrNotEmpty
	ErrChanged  = errors.New("the source was written to while it was copied; stop its authority first")
)

// CopyProgress is how far a copy is.
type CopyProgress struct {
	Table string
	Rows  int64
}

// copyRows is the number of rows in one statement. Multiplied by the columns of the widest
// table it is below the number of arguments that either database accepts.
const copyRows = 500

// Copy copies a whole record into an empty one, in either direction between the
// two databases, and returns the rows of each table. It reads one consistent
// snapshot and writes one transaction, so a copy that ends early leaves the target
// empty. The rows of both sides are counted before the commit. If somebody has written to
// the source meanwhile, the error is [ErrChanged]: the copy would not have what was
// acknowledged there.
//
// The target gets one event more, [kinds.Migrated], which names the head of the source.
//
// progress may be nil. It is called after each statement, which is at most copyRows rows.
func Copy(ctx context.Context, from, to *Store, progress func(CopyProgress)) (all []CopyProgress, err error) {
	if progress == nil {
		progress = func(CopyProgress) {}
	}
	return from.copyTo(ctx, to, copying{progress: progress, against: from.db.Read, tell: true})
}

// copying are the options of a copy.
type copying struct {
	progress func(CopyProgress)
	// against is counted at the end and compared with the copy. nil means the snapshot that
	// was copied, so that others may write to the source meanwhile.
	against sqldb.Querier
	tell    bool // adds the event
}

func (from *Store) copyTo(ctx context.Context, to *Store, how copying) (all []CopyProgress, err error) {
	err = from.db.Snapshot(ctx, func(source sqldb.Querier) error {
		return to.db.Change(ctx, func(tx *sqldb.Txn) error {
			if err := mustBeEmpty(ctx, tx); err != nil {
				return err
			}
			all = nil // PostgreSQL may run this again
			for _, table := range tables {
				n, err := tableCopier{source, tx, how.progress}.copyTable(ctx, table)
				if err != nil {
					return fmt.Errorf("copying %s: %w", table, err)
				}
				all = append(all, CopyProgress{table, n})
			}
			if err := continueNumbers(ctx, tx); err != nil {
				return err
			}
			if how.against == nil {
				how.against = source
			}
			if err := compare(ctx, how.against, tx, all); err != nil || !how.tell {
				return err
			}
			return tellMigrated(ctx, tx)
		})
	})
	if err != nil {
		return nil, fmt.Errorf("copying the record: %w", err)
	}
	return all, nil
}

// tellMigrated adds the event [kinds.Migrated] to the copy. The head in the copy is still that
// of the source.
func tellMigrated(ctx context.Context, tx *sqldb.Txn) error {
	tree, _, err := eventlog.State(ctx, tx)
	if err != nil {
		return err
	}
	detail := "from the record of " + translog.Head{Size: tree.Size(), Root: tree.Root()}.String()
	_, err = eventlog.Append(ctx, tx, record.Event{At: time.Now(), Kind: kinds.Migrated, Caller: "operator", Detail: detail}, [sha256.Size]byte{})
	return err
}

func mustBeEmpty(ctx context.Context, tx *sqldb.Txn) error {
	for _, table := range tables {
		if table == seeded {
			if _, err := tx.ExecContext(ctx, `DELETE FROM `+table); err != nil {
				return err
			}
		}
		var found bool
		if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM `+table+`)`).Scan(&found); err != nil {
			return err
		}
		if found {
			return fmt.Errorf("%w: %s has rows", ErrNotEmpty, table)
		}
	}
	return nil
}

// tableCopier copies tables within one snapshot and one transaction.
type tableCopier struct {
	source   sqldb.Querier
	target   *sqldb.Txn
	progress func(CopyProgress)
}

// copyTable copies in the order of the first column, which begins the primary key: rows are
// then appended to the index of the target, which is faster than random inserts.
func (c tableCopier) copyTable(ctx context.Context, table string) (n int64, err error) {
	rows, err := c.source.QueryContext(ctx, `SELECT * FROM `+table+` ORDER BY 1`)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	columns, err := rows.Columns()
	if err != nil {
		return 0, err
	}
	head := `INSERT INTO ` + table + ` (` + strings.Join(columns, `, `) + `) VALUES `
	one := `(` + strings.TrimSuffix(strings.Repeat(`?, `, len(columns)), `, `) + `)`
	many := head + strings.TrimSuffix(strings.Repeat(one+`, `, copyRows), `, `)
	for more := true; more; {
		var args []any
		if args, more, err = nextRows(rows, len(columns)); err != nil {
			return n, err
		}
		if len(args) == 0 {
			break
		}
		text, count := many, len(args)/len(columns)
		if count < copyRows {
			text = head + strings.TrimSuffix(strings.Repeat(one+`, `, count), `, `)
		}
		if _, err := c.target.ExecContext(ctx, text, args...); err != nil {
			return n, err
		}
		if err := ctx.Err(); err != nil { // statements of SQLite's writer ignore the context
			return n, err
		}
		n += int64(count)
		c.progress(CopyProgress{table, n})
	}
	return n, rows.Err()
}

// nextRows reads the values of up to copyRows rows, one after the other.
func nextRows(rows *sql.Rows, width int) (args []any, more bool, err error) {
	for len(args) < copyRows*width {
		if !rows.Next() {
			return args, false, rows.Err()
		}
		values, into := make([]any, width), make([]any, width)
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, false, err
		}
		for i, v := range values {
			if b, ok := v.([]byte); ok && b == nil { // an empty BLOB, as SQLite returns it; NULL is nil of no type
				values[i] = []byte{}
			}
		}
		args = append(args, values...)
	}
	return args, true, nil
}

// continueNumbers sets the sequences of PostgreSQL to the largest ids that were copied.
func continueNumbers(ctx context.Context, tx *sqldb.Txn) error {
	if !tx.Concurrent {
		return nil // SQLite takes the next id from the table itself
	}
	rows, err := tx.QueryContext(ctx, `SELECT table_name, column_name FROM information_schema.columns
		WHERE table_schema = current_schema() AND is_identity = 'YES'`)
	if err != nil {
		return err
	}
	numbered, err := sqldb.Collect(rows, func(c *[2]string) error { return rows.Scan(&c[0], &c[1]) })
	if err != nil {
		return err
	}
	for _, c := range numbered {
		if _, err := tx.ExecContext(ctx, `SELECT setval(pg_get_serial_sequence('`+c[0]+`', '`+c[1]+`'), MAX(`+c[1]+`)) FROM `+c[0]+` HAVING MAX(`+c[1]+`) > 0`); err != nil {
			return fmt.Errorf("numbering %s: %w", c[0], err)
		}
	}
	return nil
}

// compare counts the target, and the source as it is now.
func compare(ctx context.Context, source sqldb.Querier, tx *sqldb.Txn, all []CopyProgress) error {
	count := func(q sqldb.Querier, table string) (n int64, err error) {
		return n, q.QueryRowContext(ctx, `SELECT COUNT(*) FROM `+table).Scan(&n)
	}
	for _, c := range all {
		n, err := count(tx, c.Table)
		if err == nil && n != c.Rows {
			err = fmt.Errorf("%d rows arrived of %d", n, c.Rows)
		}
		if err != nil {
			return fmt.Errorf("counting %s: %w", c.Table, err)
		}
		if n, err = count(source, c.Table); err != nil {
			return fmt.Errorf("counting %s: %w", c.Table, err)
		}
		if n != c.Rows {
			return fmt.Errorf("%w: %s", ErrChanged, c.Table)
		}
	}
	return nil
}
