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

// Querier runs statements. Their text is the same for both databases: "?" for
// each argument, no functions that only one of them has, RETURNING for new ids
// and ON CONFLICT for rows that may be there.
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

// numberPlaceholders writes $1, $2, … for each "?", as PostgreSQL wants them. No
// statement has a question mark in a literal.
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

// maxPrepared bounds the statements kept: the texts of this package are fewer,
// but those of List are put together.
const maxPrepared = 256

// preparer is a connection or a pool of them.
type preparer interface {
	Querier
	PrepareContext(ctx context.Context, text string) (*sql.Stmt, error)
}

// sqliteQuerier runs on SQLite and keeps each text prepared: parsing costs more than
// running most of them.
type sqliteQuerier struct {
	on preparer
	by sync.Map // text → *sql.Stmt
	n  atomic.Int32
	// unbroken lets no statement be interrupted: SQLite would take back the whole
	// transaction, of which the caller that goes away has only a part.
	unbroken bool
}

func (p *sqliteQuerier) during(ctx context.Context) context.Context {
	if p.unbroken {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// statement returns a prepared statement, or nil if there are too many or the
// text is wrong; running the text itself then says what is wrong with it.
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
	if taken { // two callers came at once
		_ = made.Close() // the other one is as good
	} else {
		p.n.Add(1)
	}
	return s.(*sql.Stmt)
}

// closeStatements frees the statements. Nobody may use them any more.
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

// QueryRowContext begins nothing for a context that is over, but is not interrupted: a
// row is found before the goroutines would run that database/sql and the driver need
// for that.
func (p *sqliteQuerier) QueryRowContext(ctx context.Context, text string, args ...any) *sql.Row {
	if p.unbroken || ctx.Err() == nil {
		ctx = context.WithoutCancel(ctx)
	}
	if s := p.statement(ctx, text); s != nil {
		return s.QueryRowContext(ctx, args...)
	}
	return p.on.QueryRowContext(ctx, text, args...)
}
