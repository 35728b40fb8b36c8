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

// readers is the number of connections for reading. Queries are short, so more of them than
// the usual number of cores gain nothing.
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

// mustBeSQLite returns [ErrNoRecord] for a file that is absent or empty, and for a database
// without the tables of a record. Opening these would make an empty record.
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
	// The writer caches 16 MB of pages, and copies them from the WAL into the file after every
	// 16 MB of WAL. A page that each commit changes is then copied once for many commits.
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

// Together they bound the wait for another process that makes the same file to 2 s.
const (
	startTries = 100
	startPause = 20 * time.Millisecond
)

// migrateSQLite migrates, and tries again while another process makes the same file. Turning
// the WAL on fails at once if the file is locked; all later statements wait by busy_timeout.
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

// touch makes an empty file with mode 0600 if there is none. SQLite itself would make it with
// the mode that the umask leaves. The -wal and -shm files get the mode of the main file.
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

// durablePragmas make a commit return after its WAL frames are flushed to the disk
// (synchronous=FULL). They must be the same for each connection.
const durablePragmas = "&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=temp_store(memory)"

// connect returns a pool for a file that exists: with mode=rw, SQLite makes none.
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

// VacuumInto writes the present state of an SQLite database to a new file (0600). Other
// connections may go on writing meanwhile.
func (db *DB) VacuumInto(ctx context.Context, to string) (err error) {
	if err := touch(to); err != nil { // SQLite accepts an empty file, and keeps its mode
		return err
	}
	// SQLite takes VACUUM INTO for a write, which query_only forbids.
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
