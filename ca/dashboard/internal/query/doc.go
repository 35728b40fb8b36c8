// Package query asks the database of a record for what pages show. Each query is a range of an
// index and has a limit, however large the record is; what would be a scan comes from the counts of
// package tally.
//
//	d := query.New(db, 40)
//	numbers, err := d.Counts(ctx, now)
//	page, next, err := d.Holders(ctx, query.HolderFilter{Show: query.Overdue, Now: now})
//
// Pages go on after a cursor, which is the position of the last row in its order, so that rows which
// are added meanwhile do not shift the next page.
//
// Invariants:
//
//   - No query reads a whole table of certificates, names, events, lineages or reports, or sorts a
//     result (TestNoScans).
//   - A cursor is a position and never a part of a statement (FuzzCursor).
//   - No secret is read: of CA certificates not the sealed key, of the ACME tables nothing (TestNoSecretInAnyOutput in
//     cmd/artstore-pki).
package query

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
)

// DB asks the database of a record. It is safe for concurrent use.
type DB struct {
	q     sqldb.Querier
	limit int
}

// New returns queries whose pages have limit rows at most.
func New(q sqldb.Querier, limit int) *DB { return &DB{q, limit} }

// WithLimit returns the same queries with pages of another size.
func (d *DB) WithLimit(limit int) *DB { return &DB{d.q, limit} }

// cursor is a position: a moment or a number, and what tells rows with the same one apart.
type cursor struct {
	at int64
	id string // decimal digits, or ""
}

func (c cursor) String() string { return strconv.FormatInt(c.at, 10) + "." + c.id }

// ErrCursor reports a cursor that no page has returned.
var ErrCursor = errors.New("not the cursor of a page")

// parseCursor reads a cursor. "" is the zero value, which is the first page.
func parseCursor(text string) (c cursor, err error) {
	if text == "" {
		return c, nil
	}
	left, right, ok := strings.Cut(text, ".")
	if ok {
		c.at, err = strconv.ParseInt(left, 10, 64)
	}
	// Serials have 49 digits at most (RFC 5280 §4.1.2.2).
	digits := len(right) <= 49 && strings.Trim(right, "0123456789") == ""
	if c.id = right; !ok || err != nil || !digits {
		return cursor{}, fmt.Errorf("%.60q: %w", text, ErrCursor)
	}
	return c, nil
}

// pageOf cuts a result that was asked for one row more than a page has, and returns the cursor of the
// next page, "" after the last one.
func pageOf[T any](rows []T, limit int, at func(T) cursor) ([]T, string) {
	if len(rows) <= limit {
		return rows, ""
	}
	return rows[:limit], at(rows[limit-1]).String()
}

// Most is how far [DB.count] counts.
const Most = 1000

// count counts the rows of a SELECT up to Most, and one more if there are more.
func (d *DB) count(ctx context.Context, text string, args ...any) (n int64, err error) {
	err = d.q.QueryRowContext(ctx, `SELECT COUNT(*) FROM (`+text+` LIMIT ?) AS counted`, append(args, Most+1)...).Scan(&n)
	return n, err
}

// optional is a number that may be NULL.
type optional = sql.NullInt64
