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

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite" // it registers the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/artstore/artstore-pki/internal/durable"
)

// readers is how many reading connections a process keeps: more than the usual
// number of cores gains nothing, a page is short.
const readers = 4

// openSQLite opens the record in a file, and makes it (0600) if it is not there.
func openSQLite(ctx context.Context, path string) (_ *Store, err error) {
	if err := touch(path); err != nil {
		return nil, fmt.Errorf("opening the record: %w", err)
	}
	s := &Store{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	// The writer keeps 16 MB of pages, and copies them from the log into the file
	// every 16 MB: those that all commits touch are copied once then.
	write, err := connect(path, 1, "&_txlock=immediate&_pragma=cache_size(-16000)&_pragma=wal_autocheckpoint(4000)")
	if err != nil {
		return nil, err
	}
	s.dbs = append(s.dbs, write)
	if err := migrateSQLite(ctx, write); err != nil {
		return nil, fmt.Errorf("opening the record %s: %w", path, err)
	}
	read, err := connect(path, readers, "&_pragma=query_only(1)")
	if err != nil {
		return nil, err
	}
	s.dbs = append(s.dbs, read)
	s.read = &prepared{on: read}
	s.writer = recording(&shared{db: write, turn: make(chan struct{}, 1)})
	return s, nil
}

const (
	startTries = 100
	startPause = 20 * time.Millisecond
)

// migrateSQLite tries again while another process makes the same file: turning
// the write-ahead log on does not wait for a lock, unlike all that comes later.
func migrateSQLite(ctx context.Context, db *sql.DB) (err error) {
	for range startTries {
		var busy *sqlite.Error
		if err = migrate(ctx, db, goose.DialectSQLite3, "sqlite"); !errors.As(err, &busy) || busy.Code()&0xff != sqlite3.SQLITE_BUSY {
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

func connect(path string, conns int, extra string) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("opening the record: %w", err)
	}
	// busy_timeout comes first: it must hold already when the journal mode is set.
	dsn := (&url.URL{Scheme: "file", Path: abs}).String() +
		"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=temp_store(memory)" + extra
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("opening the record: %w", err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}
