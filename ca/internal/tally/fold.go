package tally

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record/kinds"
)

// maxFold bounds one transaction, for which other writers wait: entries of the log, and lineages
// whose certificate has ended.
const maxFold = 500

// Fold counts in the next entries of the log, and notes which certificates have ended at now. more
// says that there is something left for another call. With nothing to do it writes nothing.
func (t *Tally) Fold(ctx context.Context, now time.Time) (more bool, err error) {
	todo, err := t.waiting(ctx, now)
	if err == nil && todo {
		err = t.db.Change(ctx, func(tx *sqldb.Txn) (err error) {
			more, err = fold(ctx, tx, sqldb.Millis(now))
			return err
		})
	}
	if err != nil {
		return false, fmt.Errorf("counting in the log: %w", err)
	}
	return more, nil
}

// Behind returns how many entries of the log are not counted in yet.
func Behind(ctx context.Context, q sqldb.Querier) (n int64, err error) {
	err = q.QueryRowContext(ctx, `SELECT COALESCE((SELECT size FROM log_state WHERE id = 1), 0) - COALESCE((SELECT folded FROM tally_state WHERE id = 1), 0)`).Scan(&n)
	return max(n, 0), err
}

func (t *Tally) waiting(ctx context.Context, now time.Time) (todo bool, err error) {
	behind, err := Behind(ctx, t.db.Read)
	if err != nil || behind > 0 {
		return behind > 0, err
	}
	err = t.db.Read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM holders WHERE state = 0 AND not_after <= ?)`, sqldb.Millis(now)).Scan(&todo)
	return todo, err
}

// batch is what one transaction of Fold works on. Its maps are filled in from the tables, changed in
// memory, and written at the end.
type batch struct {
	tx      *sqldb.Txn
	now     int64
	entries []entry
	certs   map[string]*certificate // by serial
	holders map[string]*holder      // by lineage
	changed []*holder               // in the order of their first change
	counts  counter
}

// entry is an entry of the log with its event.
type entry struct {
	at           int64
	kind         string // "" if the event is gone
	rule, serial string
}

// certificate is what Fold has to know of one.
type certificate struct {
	id                                    int64
	serial, lineage, service, kind, names string
	caller                                string
	notBefore, notAfter                   int64
	prefix                                int64 // of its fingerprint
}

func fold(ctx context.Context, tx *sqldb.Txn, now int64) (more bool, err error) {
	b := &batch{tx: tx, now: now, counts: counter{}}
	// The row is locked until the end of the transaction: another process waits here, and goes on
	// with what follows.
	var folded int64
	if err := tx.QueryRowContext(ctx, `INSERT INTO tally_state (id, folded) VALUES (1, 0)
		ON CONFLICT (id) DO UPDATE SET folded = tally_state.folded RETURNING folded`).Scan(&folded); err != nil {
		return false, err
	}
	if err := b.read(ctx, folded); err != nil {
		return false, err
	}
	for _, e := range b.entries {
		if err := b.count(ctx, e); err != nil {
			return false, err
		}
	}
	swept, err := b.sweep(ctx)
	if err == nil {
		err = b.write(ctx, folded+int64(len(b.entries)))
	}
	return len(b.entries) == maxFold || swept == maxFold, err
}

// read reads the next entries, and the certificates and lineages that they are about.
func (b *batch) read(ctx context.Context, folded int64) (err error) {
	rows, err := b.tx.QueryContext(ctx, `SELECT COALESCE(e.at, 0), COALESCE(e.kind, ''), COALESCE(e.rule, ''), COALESCE(e.serial, '')
		FROM log_entries l LEFT JOIN events e ON e.id = l.event WHERE l.idx >= ? ORDER BY l.idx LIMIT ?`, folded, maxFold)
	if err != nil {
		return err
	}
	if b.entries, err = sqldb.Collect(rows, func(e *entry) error { return rows.Scan(&e.at, &e.kind, &e.rule, &e.serial) }); err != nil {
		return err
	}
	var serials []any
	for _, e := range b.entries {
		if e.serial != "" && (kinds.OfCertificate(e.kind) || e.kind == kinds.Revoked) {
			serials = append(serials, e.serial)
		}
	}
	b.certs = map[string]*certificate{}
	if err := eachPadded(serials, func(some []any) error { return b.readCertificates(ctx, some) }); err != nil {
		return err
	}
	var lineages []any
	for _, c := range b.certs {
		lineages = append(lineages, c.lineage)
	}
	b.holders = map[string]*holder{}
	return eachPadded(lineages, func(some []any) error { return b.readHolders(ctx, some) })
}

func (b *batch) readCertificates(ctx context.Context, serials []any) error {
	rows, err := b.tx.QueryContext(ctx, `SELECT id, serial, lineage, service, kind, names, caller, not_before, not_after, der
		FROM certificates WHERE serial IN (`+marks(len(serials))+`)`, serials...)
	if err != nil {
		return err
	}
	found, err := sqldb.Collect(rows, func(c *certificate) error {
		var der []byte
		err := rows.Scan(&c.id, &c.serial, &c.lineage, &c.service, &c.kind, &c.names, &c.caller, &c.notBefore, &c.notAfter, &der)
		c.prefix = Prefix(sha256.Sum256(der))
		return err
	})
	for i := range found {
		b.certs[found[i].serial] = &found[i]
	}
	return err
}

// count counts one event in, and lets the holder of its certificate follow.
func (b *batch) count(ctx context.Context, e entry) error {
	if e.kind == "" { // pruned, or somebody has removed it, which the log shows
		return nil
	}
	b.counts.add(Events+e.kind, Hour(e.at), 1)
	if e.kind == kinds.Refused {
		b.counts.add(Refusals+e.rule, Hour(e.at), 1)
	}
	c := b.certs[e.serial]
	switch {
	case c == nil:
	case e.kind == kinds.Revoked:
		if h := b.holders[c.lineage]; h != nil && h.certificate == c.id {
			b.turn(h, Revoked)
		}
	case kinds.OfCertificate(e.kind):
		if err := insertFingerprint(ctx, b.tx, c); err != nil || e.kind == kinds.SelfIssued || e.kind == kinds.Entered {
			return err
		}
		b.enter(c)
		return b.replace(ctx, c)
	}
	return nil
}

func insertFingerprint(ctx context.Context, tx *sqldb.Txn, c *certificate) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO fingerprints (prefix, certificate) VALUES (?, ?) ON CONFLICT DO NOTHING`, c.prefix, c.id)
	return err
}

// sweep notes the certificates that have ended, and returns how many it has looked at.
func (b *batch) sweep(ctx context.Context) (n int, err error) {
	rows, err := b.tx.QueryContext(ctx, `SELECT `+holderColumns+` FROM holders WHERE state = 0 AND not_after <= ? ORDER BY not_after, lineage LIMIT ?`, b.now, maxFold)
	if err != nil {
		return 0, err
	}
	over, err := sqldb.Collect(rows, func(h *holder) error { return h.scan(rows) })
	for i := range over {
		if h := &over[i]; b.holders[h.lineage] == nil { // otherwise count has seen it
			b.holders[h.lineage] = h
			b.turn(h, Ended)
		}
	}
	return len(over), err
}

func (b *batch) write(ctx context.Context, folded int64) error {
	if err := b.writeHolders(ctx); err != nil {
		return err
	}
	if err := b.counts.write(ctx, b.tx); err != nil {
		return err
	}
	_, err := b.tx.ExecContext(ctx, `UPDATE tally_state SET folded = ? WHERE id = 1`, folded)
	return err
}

// listSizes are the lengths that lists in statements have: the driver keeps each text prepared, so
// there must be few.
var listSizes = []int{1, 10, 100}

// eachPadded calls use with the values, some at a time, as a list of one of listSizes. The last value
// is repeated as often as it takes.
func eachPadded(values []any, use func([]any) error) error {
	for len(values) > 0 {
		size := listSizes[len(listSizes)-1]
		for _, s := range listSizes {
			if len(values) <= s {
				size = s
				break
			}
		}
		list := make([]any, size)
		for i := range list {
			list[i] = values[min(i, len(values)-1)]
		}
		if err := use(list); err != nil {
			return err
		}
		values = values[min(size, len(values)):]
	}
	return nil
}
