// Package store keeps the record of the authority: every certificate, spent
// token, revocation and recorded refusal, in one SQLite file, or in a PostgreSQL
// database that several authorities share.
//
//	s, err := store.Create(ctx, "/var/lib/artstore-pki/pki.db")
//	head, err := s.Begin(ctx, logKey)
//	s, err := store.Open(ctx, "/var/lib/artstore-pki/pki.db")
//	s, err := store.Open(ctx, "postgres://pki@db.internal/pki?sslmode=verify-full&sslrootcert=/etc/pki/db.crt")
//	defer s.Close()
//	stored, err := s.Commit(ctx, store.Issuance{Certificate: c, Token: token})
//	page, next, err := s.List(ctx, record.Query{Service: "ingester"})
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
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/eventlog"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
)

// Errors that callers match.
var (
	ErrNoRecord       = sqldb.ErrNoRecord
	ErrRemoved        = sqldb.ErrRemoved
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
	db  *sqldb.DB
	log *eventlog.Log

	issuers, chains sync.Map // what was seen in the tables of these names → its number there
}

// New returns the record in an open database.
func New(db *sqldb.DB) *Store { return &Store{db: db, log: eventlog.New(db)} }

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
	db, err := sqldb.Open(ctx, where)
	if err != nil {
		return nil, err
	}
	return New(db), nil
}

// Create makes the schema of a record in a file (0600) or in a database that
// exists. What is there already stays: [Store.Begin] and [Copy] refuse a place
// that has a record.
func Create(ctx context.Context, where string) (*Store, error) {
	db, err := sqldb.Create(ctx, where)
	if err != nil {
		return nil, err
	}
	return New(db), nil
}

// Check returns why [Open] would refuse a location, without looking for it: a
// secret in it, or a server that would not be verified.
func Check(where string) error { return sqldb.Check(where) }

// Unavailable reports whether an operation failed because the database cannot be
// used now: it is locked, full, read-only, stopped, out of reach, gone or older than
// it was. The same operation may succeed later. Any other error is a fault of the
// record or of ours.
func Unavailable(err error) bool { return errors.Is(err, ErrRolledBack) || sqldb.Unavailable(err) }

// Empty reports whether nothing has been recorded yet and no log was begun.
func (s *Store) Empty(ctx context.Context) (bool, error) {
	var found bool
	if err := s.db.Read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM certificates) OR EXISTS (SELECT 1 FROM events)
		OR EXISTS (SELECT 1 FROM log_state)`).Scan(&found); err != nil {
		return false, fmt.Errorf("looking whether the record is empty: %w", err)
	}
	return !found, nil
}

// Close waits for running queries and closes the record. Closing twice is harmless.
func (s *Store) Close() error { return s.db.Close() }

// Intact is false while nothing is written because the record was removed or
// rolled back under this process.
func (s *Store) Intact() bool { return s.db.Intact() == nil }

// Ready writes and returns why that is impossible (full disk, read-only file,
// lock, a server that is away).
func (s *Store) Ready(ctx context.Context) error {
	err := s.db.Change(ctx, func(tx *sqldb.Txn) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO heartbeat (id, at) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET at = excluded.at`, millis(time.Now()))
		return err
	})
	if err != nil {
		return fmt.Errorf("writing to the record: %w", err)
	}
	return nil
}

// Times in the tables.
var (
	millis     = sqldb.Millis
	fromMillis = sqldb.FromMillis
)

// millisOrZero is for times that may be absent; the zero time is 0.
func millisOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return millis(t)
}
