package eventlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/translog"
)

// The signed head says which record this is and how many events its log has. An authority
// that opens a record compares the head with the newest one that it kept.

// Begin makes an empty database a record: it signs the head of the empty log
// (RFC 6962 §2.1) and returns it. From then on the record names its authority, and a record
// that was emptied differs from a new one. A database with a log is [ErrNotEmpty].
func (l *Log) Begin(ctx context.Context, key *translog.Key) (head []byte, err error) {
	var empty translog.Tree
	if head, err = key.Sign(translog.Head{Root: empty.Root(), Time: time.Now()}); err != nil {
		return nil, err
	}
	err = l.db.Change(ctx, func(tx *sqldb.Txn) error {
		var leaves bool
		if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM log_entries)`).Scan(&leaves); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, `INSERT INTO log_state (id, size, edge, head) VALUES (1, 0, ?, ?) ON CONFLICT DO NOTHING`, []byte{}, string(head))
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 || leaves {
			return errors.Join(err, ErrNotEmpty)
		}
		// A migration writes this row. It is missing if somebody has emptied the tables, and
		// then no revocation could be numbered.
		_, err = tx.ExecContext(ctx, `INSERT INTO revocation_mark (id, mark) SELECT 1, COALESCE(MAX(mark), 0) FROM revocations WHERE TRUE ON CONFLICT DO NOTHING`)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("beginning the log: %w", err)
	}
	return head, nil
}

// Withdraw deletes a head that Begin has returned, unless an event was recorded since. It
// changes nothing, and returns no error, if the stored head is another one.
func (l *Log) Withdraw(ctx context.Context, head []byte) error {
	err := l.db.Change(ctx, func(tx *sqldb.Txn) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM log_state WHERE size = 0 AND head = ? AND NOT EXISTS (SELECT 1 FROM events)`, string(head))
		return err
	})
	if err != nil {
		return fmt.Errorf("taking back the beginning of the log: %w", err)
	}
	return nil
}

// Resume returns the newest signed head, as text and opened, after it has checked
// that the log goes on from known, a head that the caller kept (the zero value for
// none). Errors: [ErrNoHead]; [translog.ErrForeign] for the record of another
// authority; [ErrRolledBack].
func (l *Log) Resume(ctx context.Context, v translog.Verifier, known translog.Head) (text []byte, newest translog.Head, err error) {
	if _, text, err = State(ctx, l.db.Read); err != nil && text == nil {
		return nil, newest, fmt.Errorf("reading the head of the log: %w", err)
	}
	if text == nil {
		return nil, newest, ErrNoHead
	}
	if newest, err = v.Open(text); err != nil {
		return nil, newest, err
	}
	if err = older(newest, known); err == nil && known.Size > 0 && newest.Size > known.Size {
		err = l.extends(ctx, newest, known)
	}
	if err != nil {
		return nil, newest, err
	}
	return text, newest, nil
}

// older returns [ErrRolledBack] if head has fewer entries than known, or as many with another
// root. It cannot compare the roots of different sizes; extends does.
func older(head, known translog.Head) error {
	switch {
	case head.Size < known.Size:
		return fmt.Errorf("%w: its log has %d entries, and had %d", ErrRolledBack, head.Size, known.Size)
	case known.Size > 0 && head.Size == known.Size && head.Root != known.Root:
		return fmt.Errorf("%w: the %d entries of its log are not those that were signed before", ErrRolledBack, head.Size)
	}
	return nil
}

// extends checks the consistency of two heads by the tree in the database
// (RFC 6962 §2.1.2).
func (l *Log) extends(ctx context.Context, newest, known translog.Head) error {
	proof, err := l.Consistency(ctx, newest, known.Size, newest.Size)
	if ctx.Err() != nil {
		return err
	}
	if err == nil {
		err = tlog.CheckTree(proof, newest.Size, newest.Root, known.Size, known.Root)
	}
	if err != nil {
		return fmt.Errorf("%w: its log of %d entries does not begin with the %d that were signed before: %w", ErrRolledBack, newest.Size, known.Size, err)
	}
	return nil
}

// Head returns the newest signed head, nil if nothing was signed yet.
func (l *Log) Head(ctx context.Context) ([]byte, error) {
	_, head, err := State(ctx, l.db.Read)
	if err != nil {
		return nil, fmt.Errorf("reading the head of the log: %w", err)
	}
	return head, nil
}

// State reads the tree and its signed head; both are empty before the first head. If the
// tree does not parse, the error is [ErrLog] and the head is returned nevertheless.
func State(ctx context.Context, q sqldb.Querier) (tree translog.Tree, head []byte, err error) {
	var size int64
	var edge []byte
	err = q.QueryRowContext(ctx, `SELECT size, edge, head FROM log_state WHERE id = 1`).Scan(&size, &edge, &head)
	if errors.Is(err, sql.ErrNoRows) {
		return tree, nil, nil
	}
	if err != nil {
		return tree, nil, err
	}
	if tree, err = translog.ParseTree(size, edge); err != nil {
		return tree, head, fmt.Errorf("%w: %w", ErrLog, err)
	}
	return tree, head, nil
}
