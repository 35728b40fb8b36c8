package eventlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/artstore/artstore-pki/ca/internal/certrow"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/translog"
)

// Consistency proves that the log of size to begins with the log of size from
// (RFC 6962 §2.1.2). Neither may be larger than the head; an error is [ErrLog]
// when the database no longer holds what the head signs.
func (l *Log) Consistency(ctx context.Context, head translog.Head, from, to int64) ([]tlog.Hash, error) {
	if from < 1 || from > to || to > head.Size {
		return nil, fmt.Errorf("proving the log: want 1 ≤ from ≤ to ≤ %d", head.Size)
	}
	proof, err := tlog.ProveTree(to, from, l.hashes(ctx, l.db.Read, head))
	if err != nil {
		return nil, fmt.Errorf("proving the log from %d to %d: %w", from, to, err)
	}
	return proof, nil
}

// Entry returns an entry, made again from the rows that are stored now, with its proof in
// the tree of the head (RFC 6962 §2.1.1). A pruned entry has its leaf and no payload.
// [record.ErrNotFound] means that the head has no such index, [ErrLog] that the rows are not
// those that were logged.
func (l *Log) Entry(ctx context.Context, head translog.Head, index int64) (translog.Inclusion, error) {
	if index < 0 || index >= head.Size {
		return translog.Inclusion{}, fmt.Errorf("log entry %d of %d: %w", index, head.Size, record.ErrNotFound)
	}
	page, err := logPage(ctx, l.db.Read, index, 1)
	if err == nil && (len(page) == 0 || page[0].index != index) {
		err = ErrLog
	}
	if err != nil {
		return translog.Inclusion{}, fmt.Errorf("reading log entry %d: %w", index, err)
	}
	row := &page[0]
	out := translog.Inclusion{Index: index, Leaf: row.leaf}
	if row.pruned == 0 {
		entry, err := row.rebuildEntry(ctx, l.db.Read)
		if err != nil {
			return translog.Inclusion{}, fmt.Errorf("reading log entry %d: %w", index, err)
		}
		if out.Payload = entry.Marshal(); tlog.RecordHash(out.Payload) != row.leaf {
			return translog.Inclusion{}, fmt.Errorf("reading log entry %d: %w: its rows were altered", index, ErrLog)
		}
	}
	if out.Proof, err = tlog.ProveRecord(head.Size, index, l.hashes(ctx, l.db.Read, head)); err != nil {
		return translog.Inclusion{}, fmt.Errorf("proving log entry %d: %w", index, err)
	}
	return out, nil
}

// hashes returns a reader of the tree that a head signs. The library checks each hash that
// it reads against the root of the head, so that altered hashes cannot make a proof.
func (l *Log) hashes(ctx context.Context, q sqldb.Querier, head translog.Head) tlog.HashReader {
	return tlog.TileHashReader(tlog.Tree{N: head.Size, Hash: head.Root}, tiles{ctx, q})
}

// tiles reads the stored hashes in the form that the library asks for: up to 256 consecutive
// hashes of one level, where level 0 are the leaves.
type tiles struct {
	ctx context.Context //nolint:containedctx // the library's interface has none; it lives for one proof
	q   sqldb.Querier
}

func (tiles) Height() int { return tileHeight }

func (t tiles) ReadTiles(list []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, 0, len(list))
	for _, tile := range list {
		first := tile.N << tileHeight
		text, args := `SELECT leaf FROM log_entries WHERE idx >= ? AND idx < ? ORDER BY idx`, []any{first, first + int64(tile.W)}
		if tile.L > 0 {
			text, args = `SELECT hash FROM log_nodes WHERE level = ? AND n >= ? AND n < ? ORDER BY n`, append([]any{tile.L * tileHeight}, args...)
		}
		rows, err := t.q.QueryContext(t.ctx, text, args...)
		if err != nil {
			return nil, err
		}
		hashes, err := sqldb.Collect(rows, func(b *[]byte) error { return rows.Scan(b) })
		if err != nil {
			return nil, err
		}
		var data []byte
		for _, h := range hashes {
			data = append(data, h...)
		}
		if len(data) != tile.W*tlog.HashSize {
			return nil, fmt.Errorf("%w: hashes are missing at level %d", ErrLog, tile.L*tileHeight)
		}
		out = append(out, data)
	}
	return out, nil
}

// SaveTiles does nothing: it is for caches, and these tiles come from the database.
func (tiles) SaveTiles([]tlog.Tile, [][]byte) {}

// logRow is a leaf with the rows that it should be the hash of, as they are stored now.
type logRow struct {
	index  int64 // place in the log; -1 for an event that has none yet
	id     int64 // of the event
	leaf   tlog.Hash
	pruned int64               // id of the prune that deleted the rows, 0 if none did
	event  *record.Event       // nil if the row is gone
	cert   *record.Certificate // nil if the event is about none, or the row is gone
	certID int64
	broken error       // why the row of the certificate cannot be read
	revoke *Revocation // nil as cert is
}

const logEvent = `l.event, l.leaf, %s, e.id, e.at, e.kind, e.caller, e.service, e.serial, e.rule, e.detail`

// logPage reads up to limit leaves from an index on, each with its rows.
func logPage(ctx context.Context, q sqldb.Querier, from int64, limit int) ([]logRow, error) {
	rows, err := q.QueryContext(ctx, `SELECT l.idx, `+fmt.Sprintf(logEvent, `l.pruned`)+` FROM log_entries l LEFT JOIN events e ON e.id = l.event
		WHERE l.idx >= ? ORDER BY l.idx LIMIT ?`, from, limit)
	if err != nil {
		return nil, err
	}
	return scanLog(ctx, q, rows)
}

// pendingPage reads up to limit events after the given id that have no place yet.
func pendingPage(ctx context.Context, q sqldb.Querier, after int64, limit int) ([]logRow, error) {
	rows, err := q.QueryContext(ctx, `SELECT -1, `+fmt.Sprintf(logEvent, `0`)+` FROM log_pending l LEFT JOIN events e ON e.id = l.event
		WHERE l.event > ? ORDER BY l.event LIMIT ?`, after, limit)
	if err != nil {
		return nil, err
	}
	return scanLog(ctx, q, rows)
}

// scanLog reads rows of logEvent, and adds the certificates and revocations that the events
// tell of, with one query each for the page.
func scanLog(ctx context.Context, q sqldb.Querier, rows *sql.Rows) ([]logRow, error) {
	page, err := sqldb.Collect(rows, func(r *logRow) error {
		var leaf []byte
		var id, at sql.NullInt64
		var text [6]sql.NullString
		if err := rows.Scan(&r.index, &r.id, &leaf, &r.pruned, &id, &at, &text[0], &text[1], &text[2], &text[3], &text[4], &text[5]); err != nil {
			return err
		}
		if id.Valid {
			r.event = &record.Event{ID: id.Int64, At: sqldb.FromMillis(at.Int64), Kind: text[0].String, Caller: text[1].String,
				Service: text[2].String, Serial: text[3].String, Rule: text[4].String, Detail: text[5].String}
		}
		if len(leaf) == len(r.leaf) { // a leaf of another length stays zero, which no row hashes to
			r.leaf = tlog.Hash(leaf)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return page, errors.Join(joinCertificates(ctx, q, page), joinRevocations(ctx, q, page))
}

// serials returns the serials of the rows whose event has such a kind, as arguments of a
// statement, without those that were pruned.
func serials(page []logRow, of func(kind string) bool) (args []any) {
	for _, r := range page {
		if r.event != nil && of(r.event.Kind) && r.pruned == 0 {
			args = append(args, r.event.Serial)
		}
	}
	return args
}

// joinCertificates sets cert of each row, by one query for the page.
func joinCertificates(ctx context.Context, q sqldb.Querier, page []logRow) error {
	args := serials(page, kinds.OfCertificate)
	if len(args) == 0 {
		return nil
	}
	rows, err := q.QueryContext(ctx, `SELECT `+certrow.Columns+certrow.From+` WHERE c.serial IN (`+placeholders(len(args))+`)`, args...)
	if err != nil {
		return err
	}
	found, err := sqldb.Collect(rows, func(t *certrow.Stored) (err error) {
		t.ID, err = certrow.Scan(rows, &t.Certificate)
		return err
	})
	if err != nil {
		return joinOneByOne(ctx, q, page)
	}
	by := make(map[string]*certrow.Stored, len(found))
	for i := range found {
		by[found[i].Certificate.Serial] = &found[i]
	}
	for i := range page {
		if e := page[i].event; e != nil && kinds.OfCertificate(e.Kind) && by[e.Serial] != nil {
			page[i].cert, page[i].certID = &by[e.Serial].Certificate, by[e.Serial].ID
		}
	}
	return nil
}

// joinOneByOne sets cert of each row by a query for each. It is for a page with a row that
// cannot be read, so that this row gets a finding and the others are verified.
func joinOneByOne(ctx context.Context, q sqldb.Querier, page []logRow) error {
	for i := range page {
		r := &page[i]
		if r.event == nil || !kinds.OfCertificate(r.event.Kind) || r.pruned != 0 {
			continue
		}
		found, err := certrow.Find(ctx, q, r.event.Serial)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			r.cert, r.certID = &found.Certificate, found.ID
		case !errors.Is(err, record.ErrNotFound):
			r.broken = err
		}
	}
	return nil
}

// joinRevocations sets revoke of each row, by one query for the page.
func joinRevocations(ctx context.Context, q sqldb.Querier, page []logRow) error {
	args := serials(page, func(kind string) bool { return kind == kinds.Revoked })
	if len(args) == 0 {
		return nil
	}
	rows, err := q.QueryContext(ctx, `SELECT r.serial, r.lineage, r.issuer, r.not_after, r.mark, r.revoked_at, r.reason, r.note, r.caller
		FROM revocations r WHERE r.certificate IN (SELECT id FROM certificates WHERE serial IN (`+placeholders(len(args))+`))`, args...)
	if err != nil {
		return err
	}
	found, err := sqldb.Collect(rows, func(r *Revocation) error {
		var end, at int64
		err := rows.Scan(&r.Serial, &r.Lineage, &r.Issuer, &end, &r.Mark, &at, &r.Reason, &r.Note, &r.Caller)
		r.NotAfter, r.RevokedAt = sqldb.FromMillis(end), sqldb.FromMillis(at)
		return err
	})
	if err != nil {
		return err
	}
	by := make(map[string]*Revocation, len(found))
	for i := range found {
		by[found[i].Serial] = &found[i]
	}
	for i := range page {
		if e := page[i].event; e != nil && e.Kind == kinds.Revoked {
			page[i].revoke = by[e.Serial]
		}
	}
	return nil
}

var (
	errRowGone   = errors.New("the row that it tells of is gone")
	errRowBroken = errors.New("the row that it tells of cannot be read")
)

// rebuildEntry makes the entry again from the rows that are stored now. The errors
// [errRowGone] and [errRowBroken] are findings, all others mean that the query failed.
func (r *logRow) rebuildEntry(ctx context.Context, q sqldb.Querier) (e translog.Entry, err error) {
	if r.event == nil {
		return e, errRowGone
	}
	e = toEntry(*r.event, [32]byte{})
	switch kind := r.event.Kind; {
	case r.broken != nil:
		return e, errRowBroken
	case kinds.OfCertificate(kind) && r.cert == nil, kind == kinds.Revoked && r.revoke == nil:
		return e, errRowGone
	case kinds.OfCertificate(kind):
		e.Subject = CertificateDigest(r.cert)
	case kind == kinds.Revoked:
		e.Subject = r.revoke.Digest()
	case kind == kinds.Pruned:
		var leaves []indexedLeaf
		leaves, err = prunedLeaves(ctx, q, `WHERE pruned = ?`, r.id)
		e.Subject = prunedSubject(leaves)
	}
	return e, err
}
