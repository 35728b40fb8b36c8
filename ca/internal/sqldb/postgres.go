package sqldb

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	// pgConns is how many connections a replica has at most; a server allows 100
	// by default, so there is room for some replicas and for its own tools.
	pgConns = 16
	// pgIdle is how long a connection stays open without use.
	pgIdle = 5 * time.Minute
	// pgConnect bounds the wait for a server that does not answer, if the URL does
	// not (connect_timeout, in seconds).
	pgConnect = 10 * time.Second
	// pgTries is how often a transaction is run at most, if the server ends it because of a
	// conflict with another one.
	pgTries = 5
)

// pgSession sets what the invariants of this package need, whatever the defaults of the
// server are. COMMIT returns after the transaction is on disk. A replica that vanishes in
// the middle of a transaction loses its locks after 60 s.
const pgSession = `SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
	UNION ALL SELECT set_config('idle_in_transaction_session_timeout', '60s', false)`

// IsURL reports whether a location is a URL of PostgreSQL, or else a path.
func IsURL(where string) bool {
	return strings.HasPrefix(where, "postgres://") || strings.HasPrefix(where, "postgresql://")
}

// openPostgres opens the record in a PostgreSQL database that has one.
func openPostgres(ctx context.Context, where string) (*DB, error) {
	return startPostgres(ctx, where, mustBePostgres)
}

// createPostgres makes the schema in a PostgreSQL database that exists.
func createPostgres(ctx context.Context, where string) (*DB, error) {
	return startPostgres(ctx, where, func(context.Context, *sql.DB, *pgx.ConnConfig) error { return nil })
}

// startPostgres connects, calls look, and migrates the schema unless look returns an error.
func startPostgres(ctx context.Context, where string, look func(context.Context, *sql.DB, *pgx.ConnConfig) error) (*DB, error) {
	db, config, err := connectPostgres(where)
	if err != nil {
		return nil, fmt.Errorf("opening the record: %w", err)
	}
	if err = look(ctx, db, config); err == nil {
		err = migratePostgres(ctx, db)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the record in %s: %w", nameOf(config), err), db.Close())
	}
	return &DB{pools: []*sql.DB{db}, Read: postgresQuerier{db}, writer: txPerCaller{db}, listen: config}, nil
}

// mustBePostgres returns [ErrNoRecord] for a database that is absent or has no tables of a
// record, in which a migration would make an empty record.
func mustBePostgres(ctx context.Context, db *sql.DB, config *pgx.ConnConfig) error {
	err := mustHaveSchema(ctx, db, `SELECT to_regclass('goose_db_version') IS NOT NULL`)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "3D000" { // invalid_catalog_name
		return fmt.Errorf("%w: the server has no database %q", ErrNoRecord, config.Database)
	}
	return err
}

// nameOf returns database and host for messages, without user and parameters.
func nameOf(config *pgx.ConnConfig) string {
	return fmt.Sprintf("database %q of %s", config.Database, config.Host)
}

// connectPostgres makes a pool. It connects to nothing yet.
func connectPostgres(where string) (*sql.DB, *pgx.ConnConfig, error) {
	config, err := parsePostgres(where)
	if err != nil {
		return nil, nil, err
	}
	db := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, pgSession)
		return err
	}))
	db.SetMaxOpenConns(pgConns)
	db.SetMaxIdleConns(pgConns)
	db.SetConnMaxIdleTime(pgIdle)
	return db, config, nil
}

// parsePostgres reads a postgres:// URL. It refuses a password in it, which everybody could
// read who can read pki.yaml, and connections over a network without verified TLS.
func parsePostgres(where string) (*pgx.ConnConfig, error) {
	u, err := url.Parse(where)
	if err != nil {
		return nil, errors.New("the database is not a URL") // its text may hold a password
	}
	q := u.Query()
	if _, set := u.User.Password(); set || q.Has("password") || q.Has("sslpassword") {
		return nil, errors.New("the URL of the database has a password in it; name a file with ?passfile=, which PGPASSFILE does too")
	}
	mode := q.Get("sslmode")
	if mode == "" {
		q.Set("sslmode", "disable") // checkTLS allows this for servers on this machine only
	}
	u.RawQuery = q.Encode()
	config, err := pgx.ParseConfig(u.String())
	if err != nil {
		return nil, fmt.Errorf("the URL of the database: %w", err)
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = pgConnect
	}
	if config.TLSConfig != nil {
		config.TLSConfig.MinVersion = tls.VersionTLS13
	}
	for _, f := range config.Fallbacks {
		if f.TLSConfig != nil {
			f.TLSConfig.MinVersion = tls.VersionTLS13
		}
	}
	return config, checkTLS(config, mode, q.Get("sslrootcert"))
}

// checkTLS allows verified TLS, no TLS to this machine, and no TLS elsewhere if the URL says
// sslmode=disable. The modes in between (allow, prefer, require, verify-ca) do not verify
// that the server is the one that the URL names.
func checkTLS(config *pgx.ConnConfig, mode, roots string) error {
	switch {
	case mode == "disable", mode == "" && isLocal(config):
		return nil
	case mode == "":
		return fmt.Errorf("the database on %s needs sslmode=verify-full and sslrootcert=FILE in its URL; sslmode=disable sends the record in cleartext", config.Host)
	case mode != "verify-full":
		return fmt.Errorf("sslmode=%.20s does not verify the server: want verify-full, or disable", mode)
	case roots == "" || roots == "system":
		return errors.New("sslmode=verify-full needs sslrootcert=FILE: the roots of the system are not trusted here")
	}
	return nil
}

// isLocal reports whether all servers of a URL are reached without a network.
func isLocal(config *pgx.ConnConfig) bool {
	hosts := []string{config.Host}
	for _, f := range config.Fallbacks {
		hosts = append(hosts, f.Host)
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); !path.IsAbs(h) && h != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}

// txPerCaller is the writing side of PostgreSQL: one transaction for each caller, in any
// number of processes. Transactions are READ COMMITTED. Unique keys keep a thing from
// happening twice, and advisory locks of the callers keep two things from happening at the
// same time.
type txPerCaller struct{ db *sql.DB }

// change runs fn in a transaction, and again if the server ended it because of a conflict. A
// crash before the commit leaves nothing of it. If the connection breaks during COMMIT, the
// outcome is unknown and change returns an error: a caller that asks again finds the row.
func (c txPerCaller) change(ctx context.Context, fn func(*Txn) error) (err error) {
	for range pgTries {
		if err = c.once(ctx, fn); !isConflict(err) {
			return err
		}
	}
	return err
}

func (c txPerCaller) once(ctx context.Context, fn func(*Txn) error) error {
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := guarded(fn, &Txn{postgresQuerier{tx}, true}); err != nil {
		return errors.Join(err, ignoreDone(tx.Rollback()))
	}
	return tx.Commit()
}

func (txPerCaller) shutdown() error { return nil }

// isConflict reports the SQLSTATE codes serialization_failure and deadlock_detected.
func isConflict(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "40001" || pg.Code == "40P01")
}

// ignoreDone returns nil for the error of a rollback that the end of the context has made
// already.
func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}
