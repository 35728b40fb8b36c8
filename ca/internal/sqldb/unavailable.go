package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Unavailable reports whether an operation failed because the database cannot be used now:
// it is locked, full, read-only, stopped, removed or does not answer. The same operation may
// succeed later. Any other error is a fault of the data or of the program.
func Unavailable(err error) bool {
	if lite, ok := errors.AsType[*sqlite.Error](err); ok {
		return slices.Contains(liteAway, lite.Code()&0xff) // without the extended part
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return slices.ContainsFunc(pgAway, func(code string) bool { return strings.HasPrefix(pg.Code, code) })
	}
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	_, network := errors.AsType[net.Error](err)
	return connecting || network || pgconn.SafeToRetry(err) ||
		slices.ContainsFunc(brokenConn, func(target error) bool { return errors.Is(err, target) })
}

var (
	// liteAway are primary result codes of SQLite.
	liteAway = []int{
		sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY,
		sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
	}
	// pgAway are SQLSTATE codes, or their classes (PostgreSQL documentation, appendix A).
	pgAway = []string{
		"08",             // connection exceptions
		"25006",          // read_only_sql_transaction: a standby
		"3D000", "42P01", // the database is gone, or an empty one is in its place
		"40001", "40P01", // conflicts, after all tries
		"53",                      // insufficient resources, disk_full among them
		"55P03",                   // lock_not_available
		"57P01", "57P02", "57P03", // shutdown, crash, cannot connect now
		"58", // system errors
	}
	brokenConn = []error{ErrRemoved, driver.ErrBadConn, sql.ErrConnDone, io.EOF, io.ErrUnexpectedEOF, context.DeadlineExceeded}
)
