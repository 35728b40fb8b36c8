// Package sqldb opens the database of a record and runs transactions on it: one SQLite
// file, or a PostgreSQL database that several authorities share. It owns the schema and
// its migrations, and knows nothing of what the tables mean.
//
//	db, err := sqldb.Open(ctx, "/var/lib/artstore-pki/pki.db")
//	defer db.Close()
//	err = db.Change(ctx, func(tx *sqldb.Txn) error { … })
//	rows, err := db.Read.QueryContext(ctx, `SELECT serial FROM certificates WHERE id = ?`, id)
//
// Invariants, the same for both databases. The tests are in ca and ca/store, where tables
// have a meaning:
//
//   - A change that [DB.Change] has acknowledged survives kill -9 (TestKill) and, by WAL with
//     synchronous=FULL or by synchronous_commit, a power loss.
//   - A change that failed leaves nothing, and changes that share its transaction are not
//     affected (TestNothingHalfDone, TestCrowdSharesATransaction).
//   - Nothing is committed to a file that was removed or replaced while it was open
//     (TestFileThatVanishes).
//   - [Open] makes nothing: a record that was lost is an error, not an empty record
//     (TestOpenMakesNothing, TestOpenMakesNothingInPostgres).
package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// DB is an open database. It is safe for concurrent use.
type DB struct {
	// Read runs queries outside of a transaction.
	Read Querier

	pools  []*sql.DB       // the pool that writes comes first
	writer writer          // nil for a database that was opened for reading
	file   *watchedFile    // nil for PostgreSQL
	listen *pgx.ConnConfig // nil for SQLite
	fault  atomic.Pointer[fault]
}

// fault is the reason of [DB.Stop].
type fault struct{ err error }

// writer runs changes in transactions: many callers in one with SQLite, one in each with
// PostgreSQL.
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

// Create makes the schema of a record in a file (0600) or in a database that exists. A
// record that is there already is opened, and stays as it is.
func Create(ctx context.Context, where string) (*DB, error) {
	if IsURL(where) {
		return createPostgres(ctx, where)
	}
	return createSQLite(ctx, where)
}

// OpenAsIs opens a database for reading, without the migrations that [Open] does. Its Change
// returns an error.
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

// OpenReaders opens a database for reading, beside whatever writes it, with conns connections of its
// own at most, which refuse to write. Nothing is migrated: a schema that is not the one of this program is an error, and so is
// a place without a record ([ErrNoRecord]).
func OpenReaders(ctx context.Context, where string, conns int) (_ *DB, err error) {
	db, err := OpenAsIs(ctx, onlyReading(where))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	var have int64
	if err := db.Read.QueryRowContext(ctx, `SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version`).Scan(&have); err != nil {
		return nil, fmt.Errorf("reading the schema version: %w", err)
	}
	switch known, err := NewestMigration(); {
	case err != nil:
		return nil, err
	case have != known:
		return nil, fmt.Errorf("opening the record: %w: it has version %d, and this program reads %d", ErrSchema, have, known)
	}
	for _, pool := range db.pools {
		pool.SetMaxOpenConns(conns)
		pool.SetMaxIdleConns(conns)
	}
	if !IsURL(where) {
		db.file, err = watchFile(where)
	}
	return db, err
}

// onlyReading returns a location whose sessions cannot write. Those of an SQLite file are so already.
func onlyReading(where string) string {
	u, err := url.Parse(where)
	if err != nil || !IsURL(where) { // a URL that does not parse is refused by whoever opens it
		return where
	}
	q := u.Query()
	q.Set("default_transaction_read_only", "on")
	u.RawQuery = q.Encode()
	return u.String()
}

// ErrSchema reports a record whose schema is that of another version of the program.
var ErrSchema = errors.New("the schema of the record is that of another version of the program")

// Check returns the reason for which [Open] would refuse the text of a location: a secret in
// it, or a server that would not be verified. It connects to nothing.
func Check(where string) error {
	if !IsURL(where) {
		return nil
	}
	_, err := parsePostgres(where)
	return err
}

// Name returns a location for messages: of a URL only database and host.
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

// Change runs fn in one transaction. fn may run more than once, so it must reset the
// variables that it sets, and it must not call the DB: it would wait for itself. A crash
// before the commit leaves nothing of the transaction, a crash after it everything. A caller
// therefore answers only after Change has returned nil. While the database is stopped,
// Change returns the reason.
func (db *DB) Change(ctx context.Context, fn func(*Txn) error) error {
	if err := db.Stopped(); err != nil {
		return err
	}
	return db.ChangeStopped(ctx, fn)
}

// ChangeStopped is [DB.Change] although the database is stopped. It is for the one caller
// that finds out whether the reason of the stop is gone.
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

// Intact returns nil if the open database is still the one at its location. Otherwise it
// returns the reason of a stop, or [ErrRemoved]. It costs two system calls.
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
	if db.Postgres() { // a transaction of SQLite always reads one state
		opt.Isolation = sql.LevelRepeatableRead
	}
	tx, err := db.pools[len(db.pools)-1].BeginTx(ctx, opt)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // nothing was written; this closes the statements
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
	for i := range db.pools { // the writer last: closing it moves SQLite's WAL into the file
		errs = append(errs, db.pools[len(db.pools)-1-i].Close())
	}
	return errors.Join(errs...)
}

// Millis returns a time as the tables have it: milliseconds since 1970.
func Millis(t time.Time) int64 { return t.UnixMilli() }

// FromMillis returns the time, in UTC, that [Millis] turned into a number.
func FromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
