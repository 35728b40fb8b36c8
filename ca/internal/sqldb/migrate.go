package sqldb

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
)

// ErrNoRecord reports a location where there is no record.
var ErrNoRecord = errors.New("there is no record")

// Both dialects have the same numbers: a record of one can be copied into the other.
//
//go:embed migrations/sqlite/*.sql migrations/postgres/*.sql
var migrations embed.FS

// mustHaveSchema returns [ErrNoRecord] for a database to which no migration was applied.
// exists is a query whose result says whether the table of migrations is there.
func mustHaveSchema(ctx context.Context, db *sql.DB, exists string) error {
	var found bool
	if err := db.QueryRowContext(ctx, exists).Scan(&found); err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("%w: the database has no tables of a record", ErrNoRecord)
	}
	version := int64(0)
	if err := db.QueryRowContext(ctx, `SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version`).Scan(&version); err != nil {
		return fmt.Errorf("reading the schema version: %w", err)
	}
	if version == 0 {
		return fmt.Errorf("%w: the tables in the database are empty", ErrNoRecord)
	}
	return nil
}

// migrate applies the numbered migrations that are missing, each in its own
// transaction: a crash in between leaves a schema that the next start completes.
// Migrations cannot be undone; a backup can be restored.
func migrate(ctx context.Context, db *sql.DB, dialect goose.Dialect, folder string) error {
	dir, err := fs.Sub(migrations, "migrations/"+folder)
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(dialect, db, dir, goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return fmt.Errorf("reading migrations: %w", err)
	}
	for {
		have, want, err := provider.GetVersions(ctx)
		if err != nil {
			return fmt.Errorf("reading the schema version: %w", err)
		}
		if have > want {
			return fmt.Errorf("schema version %d is newer than %d, the newest this program knows", have, want)
		}
		if have == want {
			return nil
		}
		if _, err = provider.Up(ctx); err == nil {
			return nil
		}
		// Another process that starts at the same time may apply the same migrations, and be
		// one ahead. This one tries again as long as the version grows.
		if now, _, again := provider.GetVersions(ctx); again != nil || now <= have {
			return fmt.Errorf("migrating the schema from version %d to %d: %w", have, want, err)
		}
	}
}

// migrationLock is the key of the advisory lock for migrations. It has no meaning, but all
// versions of the program must use the same number.
const migrationLock = 0x61727470

// migratePostgres lets one replica at a time look at the version and migrate.
// The lock belongs to a connection, so it ends with a process that dies.
func migratePostgres(ctx context.Context, db *sql.DB) (err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock($1)`, migrationLock); err != nil {
		return fmt.Errorf("waiting for the turn to migrate: %w", err)
	}
	defer func() {
		_, unlock := conn.ExecContext(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, migrationLock)
		err = errors.Join(err, unlock)
	}()
	return migrate(ctx, db, goose.DialectPostgres, "postgres")
}

// NewestMigration returns the number of the last migration; both dialects have the same.
func NewestMigration() (newest int64, err error) {
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
