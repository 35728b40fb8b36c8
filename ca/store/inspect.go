package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/translog"
)

// Inspection is what [Inspect] finds out.
type Inspection struct {
	Schema   int64     // number of its last migration
	Known    int64     // number of the last one that this program has
	Problems []string  // of SQLite's integrity check; empty is sound
	Newest   time.Time // when the last certificate was issued, by the clock at that time; zero if there is none
	Rows     int       // certificates
	Revoked  int       // of them revoked and not expired, unless Schema is older than Known
}

// Inspect reads a record without changing it: it migrates nothing, and makes no file. It may
// run beside an authority. With SQLite it reads every page, for the integrity check.
func Inspect(ctx context.Context, where string) (_ Inspection, err error) {
	var in Inspection
	db, err := sqldb.OpenAsIs(ctx, where)
	if err != nil {
		return in, fmt.Errorf("inspecting the record: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if in.Known, err = sqldb.NewestMigration(); err != nil {
		return in, err
	}
	if err := db.Read.QueryRowContext(ctx, `SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version`).Scan(&in.Schema); err != nil {
		return in, fmt.Errorf("inspecting the record: reading its schema version: %w", err)
	}
	if !sqldb.IsURL(where) {
		rows, err := db.Read.QueryContext(ctx, `PRAGMA integrity_check(20)`)
		if err != nil {
			return in, fmt.Errorf("inspecting the record: %w", err)
		}
		if in.Problems, err = sqldb.Collect(rows, func(s *string) error { return rows.Scan(s) }); err != nil {
			return in, fmt.Errorf("inspecting the record: %w", err)
		}
		if len(in.Problems) == 1 && in.Problems[0] == "ok" {
			in.Problems = nil
		}
	}
	var newest int64
	if err := db.Read.QueryRowContext(ctx, `SELECT COUNT(*), COALESCE(MAX(issued_at), 0) FROM certificates`).Scan(&in.Rows, &newest); err != nil {
		return in, fmt.Errorf("inspecting the record: %w", err)
	}
	if newest != 0 {
		in.Newest = fromMillis(newest)
	}
	if in.Schema < in.Known { // an older schema may lack the columns of the query below
		return in, nil
	}
	const unexpired = `SELECT COUNT(*) FROM revocations WHERE not_after > ?`
	if err := db.Read.QueryRowContext(ctx, unexpired, millis(time.Now())).Scan(&in.Revoked); err != nil {
		return in, fmt.Errorf("inspecting the record: %w", err)
	}
	return in, nil
}

// Look is [Store.Resume] for a record that is not to be changed: it migrates nothing.
func Look(ctx context.Context, where string, v translog.Verifier, known translog.Head) (newest translog.Head, err error) {
	db, err := sqldb.OpenAsIs(ctx, where)
	if err != nil {
		return newest, fmt.Errorf("inspecting the record: %w", err)
	}
	s := New(db)
	defer func() { err = errors.Join(err, s.Close()) }()
	_, newest, err = s.Resume(ctx, v, known)
	return newest, err
}

// Snapshot writes the state of a record at one moment to a new SQLite file (0600). Others may
// go on writing. From PostgreSQL it copies every row; [Copy] copies them back.
func Snapshot(ctx context.Context, where, to string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("copying the record: %w", err)
		}
	}()
	if _, err := os.Stat(to); err == nil {
		return fmt.Errorf("%s: %w", to, fs.ErrExist)
	}
	if sqldb.IsURL(where) {
		return copyOut(ctx, where, to)
	}
	db, err := sqldb.OpenAsIs(ctx, where)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.VacuumInto(ctx, to)
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
	_, err = from.copyTo(ctx, copied, copying{progress: func(CopyProgress) {}})
	return err
}

// Prunable counts the certificates that Prune would remove.
func (s *Store) Prunable(ctx context.Context, before time.Time) (n int, err error) {
	return count(ctx, s.db.Read, `SELECT COUNT(*) FROM certificates c WHERE c.not_after < ?
		AND NOT EXISTS (SELECT 1 FROM certificates n WHERE n.lineage = c.lineage AND n.not_after >= ?)`, millis(before), millis(before))
}
