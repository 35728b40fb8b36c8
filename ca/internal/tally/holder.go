package tally

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/internal/lifetime"
)

// holder is a row of the table of holders.
type holder struct {
	lineage, service       string
	certificate            int64
	state                  State
	notAfter, due, overdue int64
	reported               int64
	dirty                  bool
}

const holderColumns = `lineage, service, certificate, state, not_after, due, overdue, reported`

func (h *holder) scan(row sqldb.Scanner) error {
	return row.Scan(&h.lineage, &h.service, &h.certificate, &h.state, &h.notAfter, &h.due, &h.overdue, &h.reported)
}

func (b *batch) readHolders(ctx context.Context, lineages []any) error {
	rows, err := b.tx.QueryContext(ctx, `SELECT `+holderColumns+` FROM holders WHERE lineage IN (`+marks(len(lineages))+`)`, lineages...)
	if err != nil {
		return err
	}
	found, err := sqldb.Collect(rows, func(h *holder) error { return h.scan(rows) })
	for i := range found {
		b.holders[found[i].lineage] = &found[i]
	}
	return err
}

// touch remembers that a row is to be written.
func (b *batch) touch(h *holder) {
	if !h.dirty {
		h.dirty = true
		b.changed = append(b.changed, h)
	}
}

// turn gives a holder another state.
func (b *batch) turn(h *holder, to State) {
	b.touch(h)
	b.counts.live(h, -1)
	h.state = to
	b.counts.live(h, 1)
}

// enter makes a certificate that of its lineage, unless that has a newer one. A lineage without a
// live certificate comes back with a renewal in the grace.
func (b *batch) enter(c *certificate) {
	h := b.holders[c.lineage]
	if h == nil {
		h = &holder{lineage: c.lineage}
		b.holders[c.lineage] = h
	}
	if h.certificate >= c.id {
		return
	}
	b.touch(h)
	if h.certificate != 0 {
		b.counts.live(h, -1)
	}
	from, to := sqldb.FromMillis(c.notBefore), sqldb.FromMillis(c.notAfter)
	_, due := lifetime.RenewalWindow(from, to)
	h.service, h.certificate, h.state = c.service, c.id, Live
	h.notAfter, h.due, h.overdue = c.notAfter, sqldb.Millis(due), sqldb.Millis(lifetime.OverdueAt(from, to))
	if h.notAfter <= b.now {
		h.state = Ended
	}
	b.counts.live(h, 1)
}

// maxReplaced bounds how many lineages one certificate replaces.
const maxReplaced = 20

// acmeCaller begins the caller of a certificate that an ACME account has ordered.
const acmeCaller = "acme "

// replace ends the lineages that a certificate by ACME takes the place of. A client of ACME does
// not renew but orders again, so its last certificate is the first one of another lineage, with the
// same account and the same names.
func (b *batch) replace(ctx context.Context, c *certificate) error {
	var names []string
	if !strings.HasPrefix(c.caller, acmeCaller) || json.Unmarshal([]byte(c.names), &names) != nil || len(names) == 0 {
		return nil //nolint:nilerr // a row that somebody has damaged replaces nothing
	}
	rows, err := b.tx.QueryContext(ctx, `SELECT c.lineage FROM certificate_names n JOIN certificates c ON c.id = n.id
		WHERE n.name = ? AND n.not_after > ? AND c.id < ? AND c.caller = ? AND c.names = ? AND c.service = ? ORDER BY n.not_after DESC, n.id DESC LIMIT ?`,
		names[0], b.now, c.id, c.caller, c.names, c.service, maxReplaced)
	if err != nil {
		return err
	}
	lineages, err := sqldb.Collect(rows, func(l *string) error { return rows.Scan(l) })
	if err != nil {
		return err
	}
	var unknown []any
	for _, l := range lineages {
		if b.holders[l] == nil {
			unknown = append(unknown, l)
		}
	}
	if err := eachPadded(unknown, func(some []any) error { return b.readHolders(ctx, some) }); err != nil {
		return err
	}
	for _, l := range lineages {
		if h := b.holders[l]; h != nil && h.state == Live && h.certificate < c.id {
			b.turn(h, Replaced)
		}
	}
	return nil
}

// writeHolders writes the rows that have changed, those of several lineages in one statement.
func (b *batch) writeHolders(ctx context.Context) error {
	for rest := b.changed; len(rest) > 0; {
		size := 1
		for _, s := range slices.Backward(listSizes) {
			if len(rest) >= s {
				size = s
				break
			}
		}
		args := make([]any, 0, 9*size)
		for _, h := range rest[:size] {
			args = append(args, h.lineage, h.service, h.certificate, int64(h.state), h.notAfter, h.due, h.overdue, h.lineage)
		}
		// Whether the lineage has reported is asked again with each row: its first report may have come
		// before the row.
		one := `(?, ?, ?, ?, ?, ?, ?, CASE WHEN EXISTS (SELECT 1 FROM trust_reports WHERE lineage = ?) THEN 1 ELSE 0 END)`
		_, err := b.tx.ExecContext(ctx, `INSERT INTO holders (`+holderColumns+`) VALUES `+strings.TrimSuffix(strings.Repeat(one+`, `, size), `, `)+`
			ON CONFLICT (lineage) DO UPDATE SET service = excluded.service, certificate = excluded.certificate, state = excluded.state,
			not_after = excluded.not_after, due = excluded.due, overdue = excluded.overdue, reported = excluded.reported`, args...)
		if err != nil {
			return err
		}
		rest = rest[size:]
	}
	return nil
}
