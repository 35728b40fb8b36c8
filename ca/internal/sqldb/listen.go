package sqldb

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// channel is the name of the notifications. All versions of the program that share a
// database must use the same one.
const channel = "artstore_pki"

// Notify tells the other processes that share a PostgreSQL database, once the transaction
// has committed, that something has changed that they do not look for all the time. With
// SQLite it does nothing: there a process looks often, because looking costs little.
func (tx *Txn) Notify(ctx context.Context) error {
	if !tx.Concurrent {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `SELECT pg_notify('`+channel+`', '')`); err != nil {
		return fmt.Errorf("telling other processes: %w", err)
	}
	return nil
}

// Listen calls heard when it begins to listen, and for each [Txn.Notify] of any process
// from then on, until ctx ends or the connection breaks; the error says why. A transaction
// that committed before heard was called for the first time can be seen by then. Several
// notifications may be one call. heard must be fast.
//
// With SQLite, and for a database that was opened for reading, it returns
// [errors.ErrUnsupported] at once.
func (db *DB) Listen(ctx context.Context, heard func()) (err error) {
	if db.listen == nil {
		return fmt.Errorf("listening for changes: %w", errors.ErrUnsupported)
	}
	conn, err := pgx.ConnectConfig(ctx, db.listen.Copy())
	if err != nil {
		return fmt.Errorf("listening for changes: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if _, err := conn.Exec(ctx, `LISTEN `+channel); err != nil {
		return fmt.Errorf("listening for changes: %w", err)
	}
	for {
		heard()
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return fmt.Errorf("listening for changes: %w", err)
		}
	}
}
