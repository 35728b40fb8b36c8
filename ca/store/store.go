// Package store keeps the record of the authority: every certificate, spent
// token, revocation and recorded refusal, in one SQLite file.
//
//	s, err := store.Open(ctx, "/var/lib/artstore-pki/pki.db")
//	defer s.Close()
//	stored, err := s.Commit(ctx, store.Issue{Certificate: c, Token: token})
//	page, next, err := s.List(ctx, store.Query{Service: "ingester"})
//
// Promises:
//
//   - What a call acknowledged survives kill -9 and power loss (WAL with
//     synchronous=FULL).
//   - A certificate, the token spent on it, and the event that tells of it are
//     one transaction: there is never one without the others.
//   - A token is spent on one key, whatever number of callers and processes try.
//   - Every page of List is a range scan of an index.
//
// Several processes may open the same file: the commands of an operator work
// beside a running authority. One connection per process writes, so that
// writers queue in Go, fairly and cancellably, and not inside SQLite.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"github.com/artstore/artstore-pki/internal/durable"
)

// readers is how many reading connections a process keeps: more than the usual
// number of cores gains nothing, a page is short.
const readers = 4

// Errors that callers match.
var (
	ErrNotFound       = errors.New("not in the record")
	ErrTokenUsed      = errors.New("token already used for another key")
	ErrRevoked        = errors.New("revoked")
	ErrAlreadyRevoked = errors.New("already revoked")
)

// Store is an open record. It is safe for concurrent use.
type Store struct {
	write *sql.DB
	read  *sql.DB
}

// Open opens the record at path, makes it (0600) if it is not there, and brings
// its schema up to date. A schema newer than this program is an error: running
// it backwards would lose what the newer one wrote.
func Open(ctx context.Context, path string) (_ *Store, err error) {
	if err := touch(path); err != nil {
		return nil, fmt.Errorf("opening the record: %w", err)
	}
	s := &Store{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.write, err = connect(path, 1, "_txlock=immediate"); err != nil {
		return nil, err
	}
	if err := migrate(ctx, s.write); err != nil {
		return nil, fmt.Errorf("opening the record %s: %w", path, err)
	}
	if s.read, err = connect(path, readers, "_pragma=query_only(1)"); err != nil {
		return nil, err
	}
	return s, nil
}

// touch makes the file first, because SQLite would make it with the umask's
// mode; its -wal and -shm files take the mode of the main one.
func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, durable.Private)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

func connect(path string, conns int, extra string) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("opening the record: %w", err)
	}
	// busy_timeout comes first: it must hold already when the journal mode is set.
	dsn := (&url.URL{Scheme: "file", Path: abs}).String() +
		"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&" + extra
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("opening the record: %w", err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// Close waits for running queries and closes the file. Closing twice is harmless.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} { // the writer last: it checkpoints the log
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// Ready writes and returns why that is impossible (full disk, read-only file, lock).
func (s *Store) Ready(ctx context.Context) error {
	_, err := s.write.ExecContext(ctx,
		`INSERT INTO heartbeat (id, at) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET at = excluded.at`, time.Now().UnixMilli())
	if err != nil {
		return fmt.Errorf("writing to the record: %w", err)
	}
	return nil
}

// change runs fn in one transaction. A crash before the commit leaves nothing of
// it, one after it everything: callers answer only after change has returned nil.
func (s *Store) change(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		return errors.Join(err, ignoreDone(tx.Rollback()))
	}
	return tx.Commit()
}

// ignoreDone drops the answer of a rollback after the context has already rolled back.
func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

func millis(t time.Time) int64 { return t.UnixMilli() }

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
