package query

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/tally"
	"github.com/artstore/artstore-pki/ca/record/kinds"
)

// Numbers are what the first page says. Counts of lineages are by the hour, as of the last time that
// the authority has counted; those with a limit say so.
type Numbers struct {
	Live    int64 // lineages with a live certificate
	Overdue int64 // of them, up to Most
	Lapsed  int64 // lineages that have ended in the last day without a renewal, up to Most
	Pending int64 // events that wait for their place in the log, up to Most
	Behind  int64 // entries of the log that are not counted yet
	// Oldest is when the first of the pending events happened.
	Oldest time.Time
	Ends   []int64 // certificates that end in each hour, from the present one on
	Dues   []int64 // renewals that are due by the end of each hour
	Done   []int64 // renewals in each of the last hours, the present one last
}

// Hours is how many hours [Numbers] has in each direction.
const Hours = 48

// Counts returns what the first page says.
func (d *DB) Counts(ctx context.Context, now time.Time) (n Numbers, err error) {
	at, hour := sqldb.Millis(now), tally.Hour(sqldb.Millis(now))
	steps := []func() error{
		func() error {
			return d.q.QueryRowContext(ctx, `SELECT COALESCE(SUM(n), 0) FROM tallies WHERE what = ? AND hour >= ?`, tally.Ends, hour).Scan(&n.Live)
		},
		func() (err error) {
			n.Overdue, err = d.count(ctx, overdueText, at, at)
			return err
		},
		func() (err error) {
			n.Lapsed, err = d.count(ctx, `SELECT 1 FROM holders WHERE state IN (0, 1) AND not_after > ? AND not_after <= ?`, at-24*time.Hour.Milliseconds(), at)
			return err
		},
		func() (err error) {
			n.Pending, err = d.count(ctx, `SELECT 1 FROM log_pending`)
			return err
		},
		func() error {
			var oldest optional
			err := d.q.QueryRowContext(ctx, `SELECT (SELECT e.at FROM log_pending p JOIN events e ON e.id = p.event ORDER BY p.event LIMIT 1)`).Scan(&oldest)
			if oldest.Valid {
				n.Oldest = sqldb.FromMillis(oldest.Int64)
			}
			return err
		},
		func() (err error) {
			n.Behind, err = tally.Behind(ctx, d.q)
			return err
		},
		func() (err error) {
			n.Ends, err = d.Series(ctx, hour, Hours, tally.Ends)
			return err
		},
		func() (err error) {
			n.Dues, err = d.Series(ctx, hour, Hours, tally.Dues)
			return err
		},
		func() (err error) {
			n.Done, err = d.Series(ctx, hour-Hours+1, Hours, tally.Events+kinds.Renewed, tally.Events+kinds.Rekeyed)
			return err
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return n, fmt.Errorf("reading the counts: %w", err)
		}
	}
	return n, nil
}

// overdueText selects live certificates that should have been renewed. The index has them in a row, so a
// fleet without any costs one look.
const overdueText = `SELECT 1 FROM holders WHERE state = 0 AND overdue <= ? AND not_after + 0 > ?`

// Series returns the numbers of hours hours from an hour on, added up over what is counted.
func (d *DB) Series(ctx context.Context, from int64, hours int, what ...string) ([]int64, error) {
	out := make([]int64, hours)
	for _, w := range what {
		rows, err := d.q.QueryContext(ctx, seriesText, w, from, from+int64(hours))
		if err != nil {
			return nil, err
		}
		if _, err := sqldb.Collect(rows, func(*struct{}) error {
			var hour, n int64
			err := rows.Scan(&hour, &n)
			if i := hour - from; err == nil && i >= 0 && i < int64(hours) {
				out[i] += n
			}
			return err
		}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// seriesText reads one what, because a list of them would be sorted.
const seriesText = `SELECT hour, n FROM tallies WHERE what = ? AND hour >= ? AND hour < ?`

// maxRules bounds the rules that are listed; the program has some 30.
const maxRules = 64

// Rules returns the rules that have refused anything, sorted. Each is found from the one before, so that
// the hours of none are read.
func (d *DB) Rules(ctx context.Context) (out []string, err error) {
	last := tally.Refusals
	for len(out) < maxRules {
		rows, err := d.q.QueryContext(ctx, rulesText, last, tally.Refusals+"\U0010ffff")
		if err != nil {
			return nil, fmt.Errorf("reading the rules that have refused: %w", err)
		}
		found, err := sqldb.Collect(rows, func(s *string) error { return rows.Scan(s) })
		if err != nil || len(found) == 0 {
			return out, err
		}
		last = found[0]
		out = append(out, strings.TrimPrefix(last, tally.Refusals))
	}
	return out, nil
}

const rulesText = `SELECT what FROM tallies WHERE what > ? AND what < ? ORDER BY what LIMIT 1`

func marks(n int) string { return strings.TrimSuffix(strings.Repeat(`?,`, n), `,`) }
