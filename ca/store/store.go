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
// Invariants, the same for both databases:
//
//   - A change that a call has acknowledged survives kill -9 (TestKill in ca) and, by WAL
//     with synchronous=FULL or by synchronous_commit, a power loss.
//   - A certificate, the token spent on it, and the event that tells of it are one
//     transaction: there is never one without the others (TestNothingHalfCommitted,
//     TestNothingHalfDone).
//   - A token is spent on one key, however many callers and processes try
//     (TestOneTokenManyBuyers).
//   - A revocation is seen by every call that begins after it was acknowledged, and no
//     certificate of its lineage is committed after it (TestRevocationAgainstRenewals).
//   - A lineage never has more live certificates than Issuance.MaxLineage, however many
//     callers and processes renew at the same time (TestLineageIsFullAtOnce).
//   - Every page of List is a range scan of an index (TestEveryPageIsARangeScan).
//   - Open makes nothing: a record that was lost is an error, not an empty record
//     (TestOpenMakesNothing).
//   - Every event is in a Merkle tree whose head is signed, and VerifyLog names each change
//     that was made without the key of the log (TestLogFindings in ca/internal/eventlog;
//     docs/design/0010-the-log.md).
//
// Several processes may open the same file: the commands of an operator work beside a
// running authority. One connection of each process writes, and concurrent callers share its
// transactions and flushes. With PostgreSQL, callers and processes write at the same time,
// and unique keys and advisory locks keep them apart.
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
	ErrTrustChanged   = errors.New("the trust has changed")
	ErrTooManyOrders  = errors.New("too many orders to renew are open")
)

// Store is an open record. It is safe for concurrent use.
type Store struct {
	db  *sqldb.DB
	log *eventlog.Log

	issuers, chains sync.Map // key id or digest of a chain → id of its row, once committed
}

// New returns the record in an open database.
func New(db *sqldb.DB) *Store { return &Store{db: db, log: eventlog.New(db)} }

// Open opens a record and brings its schema up to date. where is the path of an
// SQLite file, or the postgres:// URL of a database. If there is no record, the
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
// exists. A record that is there already is opened, and stays as it is: [Store.Begin] and
// [Copy] refuse it.
func Create(ctx context.Context, where string) (*Store, error) {
	db, err := sqldb.Create(ctx, where)
	if err != nil {
		return nil, err
	}
	return New(db), nil
}

// Check returns the reason for which [Open] would refuse the text of a location: a secret in
// it, or a server that would not be verified. It connects to nothing.
func Check(where string) error { return sqldb.Check(where) }

// Unavailable reports whether an operation failed because the database cannot be used now:
// it is locked, full, read-only, stopped, removed, rolled back or does not answer. The same
// operation may succeed later. Any other error is a fault of the data or of the program.
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

// Intact returns false if the record was removed or rolled back while this process had it
// open. Nothing is written then.
func (s *Store) Intact() bool { return s.db.Intact() == nil }

// Ready writes a row, and returns the error if that is impossible: the disk is full, the file
// is read-only or locked, or the server does not answer.
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

// millisOrZero returns 0 for the zero time, which stands for an absent one.
func millisOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return millis(t)
}
