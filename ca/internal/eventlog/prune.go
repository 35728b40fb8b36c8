package eventlog

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/tally"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/translog"
)

// Pruning deletes rows and keeps their leaves, so that the tree stays the one that each kept
// head signs. A prune is an event itself, and its subject is the digest of the leaves whose
// rows it deleted. A row that was deleted in another way therefore cannot be passed off as
// pruned.

// maxPrune bounds one transaction, for which other writers wait.
const maxPrune = 500

// Prune removes up to limit certificates (500 at most) that expired before the
// given moment, with their revocations and events, in one transaction, and
// returns how many. Call it until that is less than limit. A lineage is removed only
// when all its certificates have expired: until then, the revocation of an expired one
// is what stops the others from renewing. Refusals stay. See [ErrUnsequenced].
func (l *Log) Prune(ctx context.Context, caller string, before time.Time, limit int) (removed int, err error) {
	limit = min(max(limit, 1), maxPrune)
	err = l.db.Change(ctx, func(tx *sqldb.Txn) error {
		removed = 0 // PostgreSQL may run this again
		rows, err := tx.QueryContext(ctx, `SELECT c.id, c.serial FROM certificates c WHERE c.not_after < ?
			AND NOT EXISTS (SELECT 1 FROM certificates n WHERE n.lineage = c.lineage AND n.not_after >= ?)
			ORDER BY c.not_after, c.id LIMIT ?`, sqldb.Millis(before), sqldb.Millis(before), limit)
		if err != nil {
			return err
		}
		var going pruneSet
		if _, err := sqldb.Collect(rows, func(*struct{}) error {
			var id int64
			var serial string
			err := rows.Scan(&id, &serial)
			going.ids, going.serials = append(going.ids, id), append(going.serials, serial)
			return err
		}); err != nil || len(going.ids) == 0 {
			return err
		}
		removed = len(going.ids)
		return going.prune(ctx, tx, record.Event{
			At: time.Now(), Kind: kinds.Pruned, Caller: caller,
			Detail: fmt.Sprintf("%d certificates that expired before %s", removed, before.UTC().Format(time.RFC3339)),
		})
	})
	if err != nil {
		return 0, fmt.Errorf("pruning the record: %w", err)
	}
	return removed, nil
}

func placeholders(n int) string { return strings.TrimSuffix(strings.Repeat(`?,`, n), `,`) }

// pruneSet are the certificates that are removed, as arguments of statements.
type pruneSet struct{ ids, serials []any }

// prune removes the rows and records the event e, whose subject it computes. Leaves without
// a place are [ErrUnsequenced]: only leaves in the tree can be marked as pruned.
func (d pruneSet) prune(ctx context.Context, tx *sqldb.Txn, e record.Event) error {
	const ofTheirs = ` FROM events e WHERE e.kind <> '` + kinds.Refused + `' AND e.serial IN (`
	var waiting bool
	err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1`+ofTheirs+placeholders(len(d.serials))+`) AND e.id IN (SELECT event FROM log_pending))`, d.serials...).Scan(&waiting)
	if err != nil {
		return err
	}
	if waiting {
		return ErrUnsequenced
	}
	leaves, err := prunedLeaves(ctx, tx, `WHERE event IN (SELECT e.id`+ofTheirs+placeholders(len(d.serials))+`))`, d.serials...)
	if err != nil {
		return err
	}
	id, err := Append(ctx, tx, e, prunedSubject(leaves))
	if err != nil {
		return err
	}
	indexes := []any{id}
	for _, l := range leaves {
		indexes = append(indexes, l.index)
	}
	if err := tally.Forget(ctx, tx, d.ids, d.serials); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE log_entries SET pruned = ? WHERE idx IN (`+placeholders(len(leaves))+`)`, indexes...)
	for _, step := range []struct {
		text string
		args []any
	}{
		{`DELETE FROM events WHERE kind <> '` + kinds.Refused + `' AND serial IN (` + placeholders(len(d.serials)) + `)`, d.serials},
		{`DELETE FROM revocations WHERE certificate IN (` + placeholders(len(d.ids)) + `)`, d.ids},
		{`DELETE FROM deliveries WHERE certificate IN (` + placeholders(len(d.ids)) + `)`, d.ids},
		{`DELETE FROM trust_reports WHERE lineage IN (` + placeholders(len(d.serials)) + `)`, d.serials}, // named by their first certificate
		{`DELETE FROM certificates WHERE id IN (` + placeholders(len(d.ids)) + `)`, d.ids},
	} {
		if err == nil {
			_, err = tx.ExecContext(ctx, step.text, step.args...)
		}
	}
	return err
}

// indexedLeaf is a leaf with its place in the log.
type indexedLeaf struct {
	index int64
	hash  tlog.Hash
}

// prunedLeaves returns the leaves that a WHERE clause selects, in the order of the log.
func prunedLeaves(ctx context.Context, q sqldb.Querier, where string, args ...any) ([]indexedLeaf, error) {
	rows, err := q.QueryContext(ctx, `SELECT idx, leaf FROM log_entries `+where+` ORDER BY idx`, args...)
	if err != nil {
		return nil, err
	}
	return sqldb.Collect(rows, func(l *indexedLeaf) error {
		var hash []byte
		if err := rows.Scan(&l.index, &hash); err != nil {
			return err
		}
		return toHash(&l.hash, hash)
	})
}

// prunedSubject digests leaves with their places, in the order of [prunedLeaves].
func prunedSubject(leaves []indexedLeaf) [sha256.Size]byte {
	f := translog.NewFields("pruned 1")
	for _, l := range leaves {
		f = f.Int(l.index).Bytes(l.hash[:])
	}
	return f.Digest()
}
