package tally

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
)

// State says what the newest certificate of a lineage is, as of the last [Tally.Fold]. The numbers
// are in the database.
type State int64

// The states.
const (
	Live     State = 0
	Ended    State = 1 // not renewed before its end
	Revoked  State = 2
	Replaced State = 3 // its ACME account has got another one for the same names
)

// What is counted, as column "what" of tallies says it. [Events] and [Refusals] have a kind of
// events or a rule behind them.
const (
	Ends     = "end" // live certificates, the newest of their lineages, by their end
	Dues     = "due" // the same by the end of their renewal window
	Events   = "event "
	Refusals = "refused "
)

// Tally is the counts in the database of a record. It is safe for concurrent use.
type Tally struct{ db *sqldb.DB }

// New returns the counts in an open database.
func New(db *sqldb.DB) *Tally { return &Tally{db} }

// Hour returns the hour since 1970 in which a moment of the tables lies, for column "hour".
func Hour(millis int64) int64 { return millis / time.Hour.Milliseconds() }

// Prefix returns what the table of fingerprints has of a SHA-256.
func Prefix(sum [sha256.Size]byte) int64 {
	return int64(binary.BigEndian.Uint64(sum[:8])) //nolint:gosec // G115: all 64 bits, with whatever sign
}

// Reported notes that a lineage has reported a trust bundle. It belongs to the transaction that
// stores its first report.
func Reported(ctx context.Context, tx *sqldb.Txn, lineage string) error {
	if _, err := tx.ExecContext(ctx, `UPDATE holders SET reported = 1 WHERE lineage = ? AND reported = 0`, lineage); err != nil {
		return fmt.Errorf("noting a report: %w", err)
	}
	return nil
}

// Forget removes what the tables have of certificates, given by ids and serials. It belongs to the
// transaction that removes their rows, and comes before that. Of a lineage, all certificates go at
// once. Events stay counted.
func Forget(ctx context.Context, tx *sqldb.Txn, ids, serials []any) error {
	rows, err := tx.QueryContext(ctx, `SELECT der FROM certificates WHERE id IN (`+marks(len(ids))+`)`, ids...)
	if err != nil {
		return err
	}
	prefixes, err := sqldb.Collect(rows, func(p *any) error {
		var der []byte
		err := rows.Scan(&der)
		*p = Prefix(sha256.Sum256(der))
		return err
	})
	if err == nil && len(prefixes) > 0 {
		_, err = tx.ExecContext(ctx, `DELETE FROM fingerprints WHERE prefix IN (`+marks(len(prefixes))+`) AND certificate IN (`+marks(len(ids))+`)`,
			append(prefixes, ids...)...)
	}
	if err == nil {
		err = forgetHolders(ctx, tx, serials)
	}
	if err != nil {
		return fmt.Errorf("forgetting certificates: %w", err)
	}
	return nil
}

// forgetHolders removes the rows of lineages, and what is counted of those that Fold has not seen
// end yet.
func forgetHolders(ctx context.Context, tx *sqldb.Txn, lineages []any) error {
	rows, err := tx.QueryContext(ctx, `DELETE FROM holders WHERE lineage IN (`+marks(len(lineages))+`) RETURNING state, not_after, due`, lineages...)
	if err != nil {
		return err
	}
	counts := counter{}
	if _, err := sqldb.Collect(rows, func(h *holder) error {
		err := rows.Scan(&h.state, &h.notAfter, &h.due)
		counts.live(h, -1)
		return err
	}); err != nil {
		return err
	}
	return counts.write(ctx, tx)
}

func marks(n int) string { return strings.TrimSuffix(strings.Repeat(`?,`, n), `,`) }
