package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/translog"
)

// Inspection is what can be said of a record without changing it.
type Inspection struct {
	Schema   int64     // number of its last migration
	Known    int64     // number of the last one that this program has
	Problems []string  // of SQLite's integrity check; empty is sound
	Newest   time.Time // when the last certificate was issued, by the clock of then; zero if there is none
	Rows     int       // certificates
	Revoked  int       // of them revoked and not expired, unless Schema is older than Known
}

// Inspect looks at a record as it is: it migrates nothing, and makes no file. It
// may run beside an authority. With SQLite it reads every page.
func Inspect(ctx context.Context, where string) (_ Inspection, err error) {
	var in Inspection
	db, err := openAsIs(ctx, where)
	if err != nil {
		return in, fmt.Errorf("inspecting the record: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if in.Known, err = newestMigration(); err != nil {
		return in, err
	}
	if err := db.QueryRowContext(ctx, `SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version`).Scan(&in.Schema); err != nil {
		return in, fmt.Errorf("inspecting the record: reading its schema version: %w", err)
	}
	if !IsURL(where) {
		rows, err := db.QueryContext(ctx, `PRAGMA integrity_check(20)`)
		if err != nil {
			return in, fmt.Errorf("inspecting the record: %w", err)
		}
		if in.Problems, err = collect(rows, func(s *string) error { return rows.Scan(s) }); err != nil {
			return in, fmt.Errorf("inspecting the record: %w", err)
		}
		if len(in.Problems) == 1 && in.Problems[0] == "ok" {
			in.Problems = nil
		}
	}
	var newest int64
	if err := db.QueryRowContext(ctx, `SELECT COUNT(*), COALESCE(MAX(issued_at), 0) FROM certificates`).Scan(&in.Rows, &newest); err != nil {
		return in, fmt.Errorf("inspecting the record: %w", err)
	}
	if newest != 0 {
		in.Newest = fromMillis(newest)
	}
	if in.Schema < in.Known { // the table may be another one yet
		return in, nil
	}
	count := `SELECT COUNT(*) FROM revocations WHERE not_after > ` + strconv.FormatInt(millis(time.Now()), 10) // a number: the dialects differ in placeholders
	if err := db.QueryRowContext(ctx, count).Scan(&in.Revoked); err != nil {
		return in, fmt.Errorf("inspecting the record: %w", err)
	}
	return in, nil
}

// openAsIs connects to a record without the migrations that opening a Store does.
func openAsIs(ctx context.Context, where string) (*sql.DB, error) {
	if IsURL(where) {
		db, config, err := connectPostgres(where)
		if err != nil {
			return nil, err
		}
		if err := mustBePostgres(ctx, db, config); err != nil {
			return nil, errors.Join(err, db.Close())
		}
		return db, nil
	}
	if err := mustBeSQLite(ctx, where); err != nil {
		return nil, err
	}
	return connect(where, 1, "&_pragma=query_only(1)")
}

// Look is [Store.Resume] on a record as it is: it migrates nothing.
func Look(ctx context.Context, where string, v translog.Verifier, known translog.Head) (newest translog.Head, err error) {
	db, err := openAsIs(ctx, where)
	if err != nil {
		return newest, fmt.Errorf("inspecting the record: %w", err)
	}
	s := &Store{dbs: []*sql.DB{db}, read: &prepared{on: db}}
	if IsURL(where) {
		s.read = numbered{db}
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	_, newest, err = s.Resume(ctx, v, known)
	return newest, err
}

// newestMigration is the number of the last one embedded; both dialects have the same.
func newestMigration() (newest int64, err error) {
	names, err := fs.Glob(migrations, "migrations/sqlite/*.sql")
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		digits, _, _ := strings.Cut(path.Base(name), "_")
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("reading migrations: %w", err)
		}
		newest = max(newest, n)
	}
	return newest, nil
}

// Snapshot writes what a record holds at one moment to a new SQLite file (0600),
// while others go on writing. From PostgreSQL it copies every row; the other way
// back is [Copy].
func Snapshot(ctx context.Context, where, to string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("copying the record: %w", err)
		}
	}()
	if _, err := os.Stat(to); err == nil {
		return fmt.Errorf("%s: %w", to, fs.ErrExist)
	}
	if IsURL(where) {
		return copyOut(ctx, where, to)
	}
	db, err := openAsIs(ctx, where)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := touch(to); err != nil { // SQLite takes an empty file, and keeps its mode
		return err
	}
	// query_only would stop it: to SQLite the copy is a write, though to another file.
	conn, err := db.Conn(ctx)
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

func copyOut(ctx context.Context, where, to string) (err error) {
	from, err := Open(ctx, where)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	copied, err := Create(ctx, to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, copied.Close()) }()
	_, err = from.copyTo(ctx, copied, copying{progress: func(Copied) {}})
	return err
}

// Prunable counts the certificates that Prune would remove.
func (s *Store) Prunable(ctx context.Context, before time.Time) (n int, err error) {
	return count(ctx, s.read, `SELECT COUNT(*) FROM certificates c WHERE c.not_after < ?
		AND NOT EXISTS (SELECT 1 FROM certificates n WHERE n.lineage = c.lineage AND n.not_after >= ?)`, millis(before), millis(before))
}
