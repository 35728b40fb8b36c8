package eventlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/translog"
)

const (
	// tileHeight is the number of levels of the tree from one stored level to the next. The
	// levels in between are computed again when needed, from at most 256 hashes.
	tileHeight = 8
	// maxSequence bounds one transaction of the sequencer, for which other writers wait.
	maxSequence = 2048
	// logLock is the key of the advisory lock of the replica that sequences. It has no meaning,
	// but all versions of the program must use the same number.
	logLock = 0x61727471
)

// pendingLeaf is a committed event that waits for its place.
type pendingLeaf struct {
	event int64
	hash  tlog.Hash
}

// Sequence gives committed events their places in the log, in the order of their ids, signs
// the new head and returns it. If no event waits, or another process sequences at this
// moment, it returns the newest head in the database, nil before the first. more says that
// events are left for another call.
//
// seen is the newest head that the caller knows, zero for none. If the head in the database
// is older, or another one of the same size, somebody has put back an older state. The error
// is [ErrRolledBack] then, nothing is signed, and the database takes no change at all until
// a later call finds the log in order again. Other changes of the log are [ErrLog], and stop
// only the signing.
func (l *Log) Sequence(ctx context.Context, key *translog.Key, seen translog.Head) (head []byte, more bool, err error) {
	defer func() { l.noteFault(err) }()
	waiting := false
	if err := l.db.Read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM log_pending)`).Scan(&waiting); err != nil {
		return nil, false, fmt.Errorf("looking for events to log: %w", err)
	}
	if !waiting {
		tree, head, err := State(ctx, l.db.Read)
		if err == nil {
			err = checkContinuation(tree, head, key.Verifier(), seen)
		}
		return head, false, err
	}
	// Change would return the fault of an earlier call. This call finds out whether it is gone.
	err = l.db.ChangeStopped(ctx, func(tx *sqldb.Txn) (err error) {
		head, more, err = sequence(ctx, tx, key, seen)
		return err
	})
	if err != nil {
		return nil, false, fmt.Errorf("extending the log: %w", err)
	}
	return head, more, nil
}

// sequence is the transaction of [Log.Sequence]: either leaves, tree and head are all stored,
// or nothing is.
func sequence(ctx context.Context, tx *sqldb.Txn, key *translog.Key, seen translog.Head) (head []byte, more bool, err error) {
	mine := true
	if tx.Concurrent { // the lock is released at the end of the transaction, also by a crash
		if err := tx.QueryRowContext(ctx, `SELECT pg_try_advisory_xact_lock(?)`, int64(logLock)).Scan(&mine); err != nil {
			return nil, false, err
		}
	}
	tree, head, err := State(ctx, tx)
	if err == nil {
		err = checkContinuation(tree, head, key.Verifier(), seen)
	}
	if err != nil || !mine {
		return head, false, err
	}
	leaves, err := takePending(ctx, tx)
	if err != nil || len(leaves) == 0 {
		return head, false, err
	}
	if err := extend(ctx, tx, &tree, leaves); err != nil {
		return nil, false, err
	}
	if head, err = key.Sign(translog.Head{Size: tree.Size(), Root: tree.Root(), Time: time.Now()}); err != nil {
		return nil, false, err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO log_state (id, size, edge, head) VALUES (1, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET size = excluded.size, edge = excluded.edge, head = excluded.head`, tree.Size(), tree.Edge(), string(head))
	return head, len(leaves) == maxSequence, err
}

// noteFault stops all writing if the log was rolled back, and allows it again after a check
// without an error.
func (l *Log) noteFault(err error) {
	if err == nil || errors.Is(err, ErrRolledBack) {
		l.db.Stop(err)
	}
}

// checkContinuation returns an error if the stored head does not sign the stored tree, or is
// older than seen. Without this check an attacker who can write to the database could
// replace the tree and have it signed within a second.
func checkContinuation(tree translog.Tree, text []byte, v translog.Verifier, seen translog.Head) error {
	if text == nil && tree.Size() == 0 {
		if seen.Size > 0 {
			return fmt.Errorf("%w: its log has no head, and had %d entries", ErrRolledBack, seen.Size)
		}
		return nil
	}
	head, err := v.Open(text)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrLog, err)
	case head.Size != tree.Size() || head.Root != tree.Root():
		return fmt.Errorf("%w: the tree of %d entries is not the one that was signed", ErrLog, tree.Size())
	}
	return older(head, seen)
}

// takePending removes up to maxSequence leaves from log_pending and returns them by
// ascending event id. One statement selects and deletes: between two statements another
// transaction could commit an event with a smaller id.
func takePending(ctx context.Context, tx *sqldb.Txn) ([]pendingLeaf, error) {
	rows, err := tx.QueryContext(ctx, `DELETE FROM log_pending WHERE event IN (SELECT event FROM log_pending ORDER BY event LIMIT ?)
		RETURNING event, leaf`, maxSequence)
	if err != nil {
		return nil, err
	}
	leaves, err := sqldb.Collect(rows, func(l *pendingLeaf) error {
		var hash []byte
		if err := rows.Scan(&l.event, &hash); err != nil {
			return err
		}
		return toHash(&l.hash, hash)
	})
	slices.SortFunc(leaves, func(a, b pendingLeaf) int { return cmp.Compare(a.event, b.event) })
	return leaves, err
}

// toHash checks the length of a stored hash. Another length is [ErrLog]: somebody changed it.
func toHash(out *tlog.Hash, b []byte) error {
	if len(b) != tlog.HashSize {
		return fmt.Errorf("%w: a hash of %d bytes", ErrLog, len(b))
	}
	*out = tlog.Hash(b)
	return nil
}

// extend appends leaves to the tree and stores them with the subtrees that they complete.
func extend(ctx context.Context, tx *sqldb.Txn, tree *translog.Tree, leaves []pendingLeaf) (err error) {
	index := tree.Size()
	complete := func(level int, n int64, root tlog.Hash) {
		if err == nil && level%tileHeight == 0 {
			_, err = tx.ExecContext(ctx, `INSERT INTO log_nodes (level, n, hash) VALUES (?, ?, ?)`, level, n, root[:])
		}
	}
	for _, l := range leaves {
		if tree.Append(l.hash, complete); err != nil {
			return err
		}
	}
	// Rows are inserted in groups of 256, 64, 16, 4 and 1: five prepared statements are enough
	// for any number of leaves.
	for size := 256; len(leaves) > 0; size = max(size/4, 1) {
		for ; len(leaves) >= size; leaves = leaves[size:] {
			args := make([]any, 0, 3*size)
			for _, l := range leaves[:size] {
				args = append(args, index, l.event, l.hash[:])
				index++
			}
			text := `INSERT INTO log_entries (idx, event, leaf, pruned) VALUES ` + strings.TrimSuffix(strings.Repeat(`(?, ?, ?, 0),`, size), `,`)
			if _, err := tx.ExecContext(ctx, text, args...); err != nil {
				return err
			}
		}
	}
	return nil
}
