package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Querier runs statements. Their text is the same for both databases: "?" for each argument,
// no functions that only one of them has, RETURNING for new ids and ON CONFLICT for rows that
// may exist.
type Querier interface {
	ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, text string, args ...any) *sql.Row
}

// Txn is a transaction, or a caller's part of a shared one. Only [DB.Change] makes one,
// so a function that takes a Txn cannot write outside of it.
type Txn struct {
	Querier
	// Concurrent says that several transactions run at once, as with PostgreSQL: what
	// must not happen at the same time then needs a lock. SQLite has one at a time.
	Concurrent bool
}

// TrustLock is the class of the advisory lock that those who sign hold together, and a change
// of the trust alone. Like the classes in ca/store it is in every program that shares a
// database.
const TrustLock = 3

// Scanner is a row of a result.
type Scanner interface{ Scan(dest ...any) error }

// Collect reads all rows by scan, and closes them.
func Collect[T any](rows *sql.Rows, scan func(*T) error) (_ []T, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	var out []T
	for rows.Next() {
		var v T
		if err := scan(&v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// numberPlaceholders replaces each "?" by $1, $2, … for PostgreSQL. A question mark in a
// literal would be replaced too, so no statement may have one.
func numberPlaceholders(text string) string {
	var b strings.Builder
	b.Grow(len(text) + 16)
	for n := 1; ; n++ {
		before, after, found := strings.Cut(text, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(n))
		text = after
	}
}

// postgresQuerier runs our text on PostgreSQL, whose driver keeps prepared statements
// by itself.
type postgresQuerier struct{ on Querier }

func (n postgresQuerier) ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error) {
	return n.on.ExecContext(ctx, numberPlaceholders(text), args...)
}

func (n postgresQuerier) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	return n.on.QueryContext(ctx, numberPlaceholders(text), args...)
}

func (n postgresQuerier) QueryRowContext(ctx context.Context, text string, args ...any) *sql.Row {
	return n.on.QueryRowContext(ctx, numberPlaceholders(text), args...)
}

// maxPrepared is the most statements that are kept. Fixed texts are fewer, but the text of
// List depends on the query.
const maxPrepared = 256

// preparer is a connection or a pool of them.
type preparer interface {
	Querier
	PrepareContext(ctx context.Context, text string) (*sql.Stmt, error)
}

// sqliteQuerier runs statements on SQLite and keeps each text prepared: parsing most of them
// costs more than running them.
type sqliteQuerier struct {
	on preparer
	by sync.Map     // text → *sql.Stmt
	n  atomic.Int32 // statements in by
	// unbroken keeps the end of a context from interrupting a statement. SQLite would undo the
	// whole transaction then, and with it the changes of other callers.
	unbroken bool
}

// during returns the context for a statement.
func (p *sqliteQuerier) during(ctx context.Context) context.Context {
	if p.unbroken {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// statement returns a prepared statement, or nil if there are too many or the text does not
// parse. The caller runs the text itself then, and gets the error if there is one.
func (p *sqliteQuerier) statement(ctx context.Context, text string) *sql.Stmt {
	if s, ok := p.by.Load(text); ok {
		return s.(*sql.Stmt)
	}
	if p.n.Load() >= maxPrepared {
		return nil
	}
	made, err := p.on.PrepareContext(ctx, text)
	if err != nil {
		return nil
	}
	s, taken := p.by.LoadOrStore(text, made)
	if taken { // another caller has prepared the same text meanwhile
		_ = made.Close()
	} else {
		p.n.Add(1)
	}
	return s.(*sql.Stmt)
}

// closeStatements frees the statements. No call may use the querier afterwards.
func (p *sqliteQuerier) closeStatements() error {
	var errs []error
	for _, s := range p.by.Range {
		errs = append(errs, s.(*sql.Stmt).Close())
	}
	return errors.Join(errs...)
}

func (p *sqliteQuerier) ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error) {
	ctx = p.during(ctx)
	if s := p.statement(ctx, text); s != nil {
		return s.ExecContext(ctx, args...)
	}
	return p.on.ExecContext(ctx, text, args...)
}

func (p *sqliteQuerier) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	ctx = p.during(ctx)
	if s := p.statement(ctx, text); s != nil {
		return s.QueryContext(ctx, args...)
	}
	return p.on.QueryContext(ctx, text, args...)
}

// QueryRowContext fails if the context has ended before the call. Its end during the call
// does not interrupt the query: database/sql and the driver would start a goroutine each to
// wait for it, which costs more than finding one row.
func (p *sqliteQuerier) QueryRowContext(ctx context.Context, text string, args ...any) *sql.Row {
	if p.unbroken || ctx.Err() == nil {
		ctx = context.WithoutCancel(ctx)
	}
	if s := p.statement(ctx, text); s != nil {
		return s.QueryRowContext(ctx, args...)
	}
	return p.on.QueryRowContext(ctx, text, args...)
}
