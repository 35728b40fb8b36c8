package sqldb

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

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite" // it registers the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/artstore/artstore-pki/internal/durable"
)

// readers is how many reading connections a process keeps: more than the usual
// number of cores gains nothing, a page is short.
const readers = 4

// openSQLite opens the record in a file that has one.
func openSQLite(ctx context.Context, path string) (*DB, error) {
	if err := mustBeSQLite(ctx, path); err != nil {
		return nil, fmt.Errorf("opening the record %s: %w", path, err)
	}
	return startSQLite(ctx, path)
}

// createSQLite makes the schema in a file that is absent (it gets mode 0600) or has no record.
func createSQLite(ctx context.Context, path string) (*DB, error) {
	if err := touch(path); err != nil {
		return nil, fmt.Errorf("making the record: %w", err)
	}
	return startSQLite(ctx, path)
}

// mustBeSQLite reports [ErrNoRecord] where opening would make something: a file
// that is absent or empty, and a database without the tables of a record.
func mustBeSQLite(ctx context.Context, path string) (err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", ErrNoRecord, err)
	case err != nil:
		return err
	case info.Size() == 0:
		return fmt.Errorf("%w: the file is empty", ErrNoRecord)
	}
	db, err := connect(path, 1, "&_pragma=query_only(1)")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return mustHaveSchema(ctx, db, `SELECT COUNT(*) > 0 FROM sqlite_schema WHERE type = 'table' AND name = 'goose_db_version'`)
}

// startSQLite opens the connections to a file that is there, and brings its schema up to date.
func startSQLite(ctx context.Context, path string) (_ *DB, err error) {
	db := &DB{}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	// The writer keeps 16 MB of pages, and copies them from the log into the file
	// every 16 MB: those that all commits touch are copied once then.
	write, err := connect(path, 1, durablePragmas+"&_txlock=immediate&_pragma=cache_size(-16000)&_pragma=wal_autocheckpoint(4000)")
	if err != nil {
		return nil, err
	}
	db.pools = append(db.pools, write)
	if err := migrateSQLite(ctx, write); err != nil {
		return nil, fmt.Errorf("opening the record %s: %w", path, err)
	}
	read, err := connect(path, readers, durablePragmas+"&_pragma=query_only(1)")
	if err != nil {
		return nil, err
	}
	db.pools = append(db.pools, read)
	db.Read = &sqliteQuerier{on: read}
	if db.file, err = watchFile(path); err != nil {
		return nil, fmt.Errorf("opening the record: %w", err)
	}
	db.writer = &groupCommitter{db: write, file: db.file, turn: make(chan struct{}, 1)}
	return db, nil
}

const (
	startTries = 100
	startPause = 20 * time.Millisecond
)

// migrateSQLite tries again while another process makes the same file: turning
// the write-ahead log on does not wait for a lock, unlike all that comes later.
func migrateSQLite(ctx context.Context, db *sql.DB) (err error) {
	for range startTries {
		err = migrate(ctx, db, goose.DialectSQLite3, "sqlite")
		if busy, ok := errors.AsType[*sqlite.Error](err); !ok || busy.Code()&0xff != sqlite3.SQLITE_BUSY {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(startPause):
		}
	}
	return err
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

// durablePragmas make SQLite keep what it acknowledged.
const durablePragmas = "&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=temp_store(memory)"

// connect opens connections to a file that is there: with mode=rw, SQLite makes none.
func connect(path string, conns int, extra string) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("opening the record: %w", err)
	}
	// busy_timeout comes first: it must hold already when the journal mode is set.
	dsn := (&url.URL{Scheme: "file", Path: abs}).String() +
		"?mode=rw&_pragma=busy_timeout(10000)" + extra
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("opening the record: %w", err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// VacuumInto writes what an SQLite database holds now to a new file (0600), while
// others go on writing.
func (db *DB) VacuumInto(ctx context.Context, to string) (err error) {
	if err := touch(to); err != nil { // SQLite takes an empty file, and keeps its mode
		return err
	}
	// query_only would stop it: to SQLite the copy is a write, though to another file.
	conn, err := db.pools[len(db.pools)-1].Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.ExecContext(ctx, `PRAGMA query_only(0)`); err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, `VACUUM INTO ?`, to)
	return err
}
