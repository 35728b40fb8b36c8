package tally

import (
	"cmp"
	"context"
	"slices"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
)

// counter are changes of the table of numbers.
type counter map[cell]int64

// cell is the key of a number.
type cell struct {
	what string
	hour int64
}

func (c counter) add(what string, hour, n int64) { c[cell{what, hour}] += n }

// live counts a live holder n times; the others are not counted.
func (c counter) live(h *holder, n int64) {
	if h.state == Live {
		c.add(Ends, Hour(h.notAfter), n)
		c.add(Dues, Hour(h.due), n)
	}
}

// write adds the changes to the table. The order is always the same, so that two transactions of
// PostgreSQL cannot wait for each other's rows.
func (c counter) write(ctx context.Context, tx *sqldb.Txn) error {
	cells := make([]cell, 0, len(c))
	for at, n := range c {
		if n != 0 {
			cells = append(cells, at)
		}
	}
	slices.SortFunc(cells, func(a, b cell) int { return cmp.Or(cmp.Compare(a.what, b.what), cmp.Compare(a.hour, b.hour)) })
	for _, at := range cells {
		if _, err := tx.ExecContext(ctx, `INSERT INTO tallies (what, hour, n) VALUES (?, ?, ?) ON CONFLICT (what, hour) DO UPDATE SET n = tallies.n + excluded.n`,
			at.what, at.hour, c[at]); err != nil {
			return err
		}
		if c[at] < 0 {
			if _, err := tx.ExecContext(ctx, `DELETE FROM tallies WHERE what = ? AND hour = ? AND n = 0`, at.what, at.hour); err != nil {
				return err
			}
		}
	}
	return nil
}
