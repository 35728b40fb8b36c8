package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// querier runs statements. Their text is the same for both databases: "?" for
// each argument, no functions that only one of them has, RETURNING for new ids
// and ON CONFLICT for rows that may be there.
type querier interface {
	ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, text string, args ...any) *sql.Row
}

// txn is a transaction, or a caller's part of a shared one. Only change makes
// one, so whatever takes a txn cannot write outside of it.
type txn struct {
	querier
	locks bool // several transactions run at once, see lock
}

// What lock is taken for. The numbers are in every program that shares a database.
const (
	// Of the lineages of a service: its renewals share it, revocations do not. By
	// service, so that a set of any size is one lock.
	lineageLock = 1
	// Of one lineage: the certificates that join it are counted one after the other.
	memberLock = 2
)

// lock waits until no other transaction holds what this one wants, and holds it
// until the end. With SQLite there is only one transaction at a time.
func (t *txn) lock(ctx context.Context, class int, name string, alone bool) error {
	if !t.locks {
		return nil
	}
	text := `SELECT pg_advisory_xact_lock_shared(?::int, hashtext(?))`
	if alone {
		text = `SELECT pg_advisory_xact_lock(?::int, hashtext(?))`
	}
	if _, err := t.ExecContext(ctx, text, class, name); err != nil {
		return fmt.Errorf("locking: %w", err)
	}
	return nil
}

// lockLineage lets renewals of a service run beside each other, those of one lineage
// one after the other, and none beside a revocation. It is one round trip.
func (t *txn) lockLineage(ctx context.Context, service, lineage string) error {
	if !t.locks {
		return nil
	}
	const text = `SELECT pg_advisory_xact_lock_shared(?::int, hashtext(?)), pg_advisory_xact_lock(?::int, hashtext(?))`
	if _, err := t.ExecContext(ctx, text, lineageLock, service, memberLock, lineage); err != nil {
		return fmt.Errorf("locking: %w", err)
	}
	return nil
}

// dollars makes PostgreSQL's text of ours: $1, $2, … for each "?". No statement
// has a question mark in a literal.
func dollars(text string) string {
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

// numbered runs our text on PostgreSQL, whose driver keeps prepared statements
// by itself.
type numbered struct{ on querier }

func (n numbered) ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error) {
	return n.on.ExecContext(ctx, dollars(text), args...)
}

func (n numbered) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	return n.on.QueryContext(ctx, dollars(text), args...)
}

func (n numbered) QueryRowContext(ctx context.Context, text string, args ...any) *sql.Row {
	return n.on.QueryRowContext(ctx, dollars(text), args...)
}

// maxPrepared bounds the statements kept: the texts of this package are fewer,
// but those of List are put together.
const maxPrepared = 256

// preparer is a connection or a pool of them.
type preparer interface {
	querier
	PrepareContext(ctx context.Context, text string) (*sql.Stmt, error)
}

// prepared runs on SQLite and keeps each text prepared: parsing costs more than
// running most of them.
type prepared struct {
	on preparer
	by sync.Map // text → *sql.Stmt
	n  atomic.Int32
	// unbroken lets no statement be interrupted: SQLite would take back the whole
	// transaction, of which the caller that goes away has only a part.
	unbroken bool
}

func (p *prepared) during(ctx context.Context) context.Context {
	if p.unbroken {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// statement returns a prepared statement, or nil if there are too many or the
// text is wrong; running the text itself then says what is wrong with it.
func (p *prepared) statement(ctx context.Context, text string) *sql.Stmt {
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

// close frees the statements. Nobody may use them any more.
func (p *prepared) close() error {
	var errs []error
	for _, s := range p.by.Range {
		errs = append(errs, s.(*sql.Stmt).Close())
	}
	return errors.Join(errs...)
}

func (p *prepared) ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error) {
	ctx = p.during(ctx)
	if s := p.statement(ctx, text); s != nil {
		return s.ExecContext(ctx, args...)
	}
	return p.on.ExecContext(ctx, text, args...)
}

func (p *prepared) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	ctx = p.during(ctx)
	if s := p.statement(ctx, text); s != nil {
		return s.QueryContext(ctx, args...)
	}
	return p.on.QueryContext(ctx, text, args...)
}

// QueryRowContext begins nothing for a context that is over, but is not interrupted: a
// row is found before the goroutines would run that database/sql and the driver need
// for that.
func (p *prepared) QueryRowContext(ctx context.Context, text string, args ...any) *sql.Row {
	if p.unbroken || ctx.Err() == nil {
		ctx = context.WithoutCancel(ctx)
	}
	if s := p.statement(ctx, text); s != nil {
		return s.QueryRowContext(ctx, args...)
	}
	return p.on.QueryRowContext(ctx, text, args...)
}
