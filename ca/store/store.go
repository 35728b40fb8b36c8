// Package store keeps the record of the authority: every certificate, spent
// token, revocation and recorded refusal, in one SQLite file, or in a PostgreSQL
// database that several authorities share.
//
//	s, err := store.Create(ctx, "/var/lib/artstore-pki/pki.db")
//	head, err := s.Begin(ctx, logKey)
//	s, err := store.Open(ctx, "/var/lib/artstore-pki/pki.db")
//	s, err := store.Open(ctx, "postgres://pki@db.internal/pki?sslmode=verify-full&sslrootcert=/etc/pki/db.crt")
//	defer s.Close()
//	stored, err := s.Commit(ctx, store.Issue{Certificate: c, Token: token})
//	page, next, err := s.List(ctx, store.Query{Service: "ingester"})
//
// Promises, the same for both:
//
//   - What a call acknowledged survives kill -9 and power loss (WAL with
//     synchronous=FULL; synchronous_commit).
//   - A certificate, the token spent on it, and the event that tells of it are
//     one transaction: there is never one without the others.
//   - A token is spent on one key, whatever number of callers and processes try.
//   - A revocation is seen by every call that begins after it was acknowledged,
//     and no certificate of its lineage is committed after it.
//   - A lineage never has more live certificates than Issue.MaxLineage, whatever
//     number of callers and processes renew at once.
//   - Every page of List and Search is a range scan of an index.
//   - Open makes nothing: a record that was lost is an error, not an empty record.
//   - Every event is in a Merkle tree whose head is signed; VerifyLog names what was
//     changed behind the program's back (docs/design/0010-the-log.md).
//
// Several processes may open the same file: the commands of an operator work
// beside a running authority. One connection per process writes, and concurrent
// callers share its transactions and flushes. With PostgreSQL callers and
// processes write at the same time, and unique keys and locks decide.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Errors that callers match.
var (
	ErrNoRecord       = errors.New("there is no record")
	ErrNotFound       = errors.New("not in the record")
	ErrTokenUsed      = errors.New("token already used for another key")
	ErrRevoked        = errors.New("revoked")
	ErrAlreadyRevoked = errors.New("already revoked")
	ErrSerialTaken    = errors.New("the record has another certificate with this serial")
	ErrOrderGone      = errors.New("the ACME order is not ready any more")
	ErrTooMany        = errors.New("too many live certificates")
	ErrLineageFull    = errors.New("too many live certificates of one lineage")
)

// Store is an open record. It is safe for concurrent use.
type Store struct {
	dbs    []*sql.DB // the writer first
	read   querier
	writer writer
	file   *watchedFile // of SQLite; nil for PostgreSQL
	fault  atomic.Pointer[fault]

	issuers, chains sync.Map // what was seen in the tables of these names → its number there
	secrets         sync.Map // likewise → its value
}

// writer runs changes in transactions, as its database does best.
type writer interface {
	change(ctx context.Context, fn func(*txn) error) error
	close() error
}

// Open opens a record and brings its schema up to date. where is the path of an
// SQLite file, or the postgres:// URL of a database. Where there is no record the
// error is [ErrNoRecord], and Open makes none: an authority whose record is lost
// would go on with an empty one. A URL with a password in it is refused
// (PGPASSFILE or passfile= name a file), and so is one that would send the record
// to another machine without verified TLS, unless it says sslmode=disable.
//
// A schema newer than this program is an error: running it backwards would lose
// what the newer one wrote.
func Open(ctx context.Context, where string) (*Store, error) {
	if IsURL(where) {
		return openPostgres(ctx, where)
	}
	return openSQLite(ctx, where)
}

// Create makes the schema of a record in a file (0600) or in a database that
// exists. What is there already stays: [Store.Begin] and [Copy] refuse a place
// that has a record.
func Create(ctx context.Context, where string) (*Store, error) {
	if IsURL(where) {
		return createPostgres(ctx, where)
	}
	return createSQLite(ctx, where)
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

// Name is a location in messages: it has no parameters of a URL.
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

// Empty reports whether nothing has been recorded yet and no log was begun.
func (s *Store) Empty(ctx context.Context) (bool, error) {
	var found bool
	if err := s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM certificates) OR EXISTS (SELECT 1 FROM events)
		OR EXISTS (SELECT 1 FROM log_state)`).Scan(&found); err != nil {
		return false, fmt.Errorf("looking whether the record is empty: %w", err)
	}
	return !found, nil
}

// Close waits for running queries and closes the record. Closing twice is harmless.
func (s *Store) Close() error {
	var errs []error
	if s.writer != nil {
		errs = append(errs, s.writer.close())
	}
	for i := range s.dbs { // the writer last: it checkpoints the log of SQLite
		errs = append(errs, s.dbs[len(s.dbs)-1-i].Close())
	}
	return errors.Join(errs...)
}

// Ready writes and returns why that is impossible (full disk, read-only file,
// lock, a server that is away).
func (s *Store) Ready(ctx context.Context) error {
	err := s.change(ctx, func(tx *txn) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO heartbeat (id, at) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET at = excluded.at`, millis(time.Now()))
		return err
	})
	if err != nil {
		return fmt.Errorf("writing to the record: %w", err)
	}
	return nil
}

// change runs fn in one transaction; fn may run more than once, and must not come
// back to the Store: it would wait for itself. A crash before the commit leaves
// nothing of it, one after it everything: callers answer only after change has
// returned nil.
//
// Nothing is committed to a record that is not the one that was opened, see intact.go.
func (s *Store) change(ctx context.Context, fn func(*txn) error) error {
	if err := s.stopped(); err != nil {
		return err
	}
	return s.writer.change(ctx, fn)
}

func millis(t time.Time) int64 { return t.UnixMilli() }

// millisOrZero is for times that may be absent; the zero time is 0.
func millisOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return millis(t)
}

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
