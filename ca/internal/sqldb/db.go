// Package sqldb opens the database of a record and runs transactions on it: one SQLite
// file, or a PostgreSQL database that several authorities share. It owns the schema and
// its migrations, and knows nothing of what the tables mean.
//
//	db, err := sqldb.Open(ctx, "/var/lib/artstore-pki/pki.db")
//	defer db.Close()
//	err = db.Change(ctx, func(tx *sqldb.Txn) error { … })
//	rows, err := db.Read.QueryContext(ctx, `SELECT serial FROM certificates WHERE id = ?`, id)
//
// Promises, the same for both databases:
//
//   - What [DB.Change] acknowledged survives kill -9 and power loss (WAL with
//     synchronous=FULL; synchronous_commit).
//   - Nothing is committed to a file that was removed or replaced while it was open.
//   - [Open] makes nothing: a record that was lost is an error, not an empty record.
package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"time"
)

// DB is an open database. It is safe for concurrent use.
type DB struct {
	// Read runs queries outside of a transaction.
	Read Querier

	pools  []*sql.DB // the writer first
	writer writer    // nil for a database that is only looked at
	file   *watchedFile
	fault  atomic.Pointer[fault]
}

// fault is why nothing is written any more.
type fault struct{ err error }

// writer runs changes in transactions, as its database does best.
type writer interface {
	change(ctx context.Context, fn func(*Txn) error) error
	shutdown() error
}

// Open opens the database of a record and brings its schema up to date. where is the
// path of an SQLite file or the postgres:// URL of a database. If there is no record,
// the error is [ErrNoRecord], and Open makes none: an authority whose record is lost
// would go on with an empty one. A URL with a password in it is refused, and so is one
// that would send the record to another machine without verified TLS, unless it says
// sslmode=disable.
//
// A schema that is newer than this program is an error: running it backwards would
// lose what the newer one wrote.
func Open(ctx context.Context, where string) (*DB, error) {
	if IsURL(where) {
		return openPostgres(ctx, where)
	}
	return openSQLite(ctx, where)
}

// Create makes the schema of a record in a file (0600) or in a database that exists.
// What is there already stays.
func Create(ctx context.Context, where string) (*DB, error) {
	if IsURL(where) {
		return createPostgres(ctx, where)
	}
	return createSQLite(ctx, where)
}

// OpenAsIs opens a database to look at it, without the migrations that [Open] does. Its
// Change returns an error.
func OpenAsIs(ctx context.Context, where string) (*DB, error) {
	if !IsURL(where) {
		if err := mustBeSQLite(ctx, where); err != nil {
			return nil, err
		}
		pool, err := connect(where, 1, "&_pragma=query_only(1)")
		if err != nil {
			return nil, err
		}
		return &DB{pools: []*sql.DB{pool}, Read: &sqliteQuerier{on: pool}}, nil
	}
	pool, config, err := connectPostgres(where)
	if err != nil {
		return nil, err
	}
	if err := mustBePostgres(ctx, pool, config); err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	return &DB{pools: []*sql.DB{pool}, Read: postgresQuerier{pool}}, nil
}

// Check returns why [Open] would refuse a location, without looking for it: a
// secret in it, or a server that would not be verified.
func Check(where string) error {
	if !IsURL(where) {
		return nil
	}
	_, err := parsePostgres(where)
	return err
}

// Name returns a location for messages: without the parameters of a URL.
func Name(where string) string {
	if !IsURL(where) {
		return where
	}
	config, err := parsePostgres(where)
	if err != nil {
		return "the database"
	}
	return nameOf(config)
}

// Change runs fn in one transaction. fn may run more than once, and must not call the
// DB: it would wait for itself. A crash before the commit leaves nothing of the
// transaction, a crash after it everything: callers answer only after Change has
// returned nil. While the database is stopped, Change returns the reason.
func (db *DB) Change(ctx context.Context, fn func(*Txn) error) error {
	if err := db.Stopped(); err != nil {
		return err
	}
	return db.ChangeStopped(ctx, fn)
}

// ChangeStopped is [DB.Change] for the one caller that finds out whether the reason of
// a stop has gone: it runs although the database is stopped.
func (db *DB) ChangeStopped(ctx context.Context, fn func(*Txn) error) error {
	if db.writer == nil {
		return errors.New("the database was opened for reading")
	}
	return db.writer.change(ctx, fn)
}

// Stop makes every later [DB.Change] return err, until Stop is called with nil.
func (db *DB) Stop(err error) {
	if err == nil {
		db.fault.Store(nil)
		return
	}
	db.fault.Store(&fault{err})
}

// Stopped returns what [DB.Stop] was called with. It costs one atomic load.
func (db *DB) Stopped() error {
	if f := db.fault.Load(); f != nil {
		return f.err
	}
	return nil
}

// Intact returns why the open database is not the one that its location names, nil if
// it is: the reason of a stop, or [ErrRemoved]. It costs two system calls.
func (db *DB) Intact() error {
	if err := db.Stopped(); err != nil {
		return err
	}
	if db.file != nil {
		return db.file.check()
	}
	return nil
}

// Snapshot runs reads that all see the same state of the database.
func (db *DB) Snapshot(ctx context.Context, fn func(Querier) error) error {
	opt := &sql.TxOptions{ReadOnly: true}
	if db.Postgres() { // SQLite has no other isolation than this one
		opt.Isolation = sql.LevelRepeatableRead
	}
	tx, err := db.pools[len(db.pools)-1].BeginTx(ctx, opt)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // it read only; this closes its statements as well
	if db.Postgres() {
		return fn(postgresQuerier{tx})
	}
	return fn(&sqliteQuerier{on: tx})
}

// Postgres reports whether the database is PostgreSQL, or else SQLite.
func (db *DB) Postgres() bool {
	_, is := db.Read.(postgresQuerier)
	return is
}

// Close waits for running queries and closes the database. Closing twice is harmless.
func (db *DB) Close() error {
	var errs []error
	if db.writer != nil {
		errs = append(errs, db.writer.shutdown())
	}
	for i := range db.pools { // the writer last: it checkpoints the log of SQLite
		errs = append(errs, db.pools[len(db.pools)-1-i].Close())
	}
	return errors.Join(errs...)
}

// Millis returns a time as the tables have it: milliseconds since 1970.
func Millis(t time.Time) int64 { return t.UnixMilli() }

// FromMillis returns the time, in UTC, that [Millis] turned into a number.
func FromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
