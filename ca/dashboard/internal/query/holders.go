package query

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/tally"
	"github.com/artstore/artstore-pki/ca/internal/truststore"
	"github.com/artstore/artstore-pki/ca/record"
)

// Views of lineages, see [HolderFilter].
const (
	Live     = "live"
	Overdue  = "overdue"
	Ended    = "ended"
	Revoked  = "revoked"
	Replaced = "replaced"
	Silent   = "silent"
)

// views has, for each view, its condition, its order, and the columns of that order. "+ 0" keeps SQLite
// from an index that has not this order.
var views = map[string]struct {
	where, key, op, order string
	arg                   func(now time.Time) []any
}{
	Live:     {`h.state = 0 AND h.not_after > ?`, `h.not_after`, `>`, ``, nowOnly},
	Overdue:  {`h.state = 0 AND h.overdue <= ? AND h.not_after + 0 > ?`, `h.overdue`, `>`, ``, func(now time.Time) []any { return append(nowOnly(now), nowOnly(now)...) }},
	Ended:    {`h.state = 1`, `h.not_after`, `<`, ` DESC`, none},
	Revoked:  {`h.state = 2`, `h.not_after`, `<`, ` DESC`, none},
	Replaced: {`h.state = 3`, `h.not_after`, `<`, ` DESC`, none},
	Silent:   {`h.state = 0 AND h.reported = 0`, ``, `>`, ``, none},
}

// nowOnly and none are the arguments of the conditions of views.
func nowOnly(now time.Time) []any { return []any{sqldb.Millis(now)} }
func none(time.Time) []any        { return nil }

// HolderFilter selects lineages.
type HolderFilter struct {
	Show    string // one of the views; "" is Live
	Service string // exact; "" is all. It goes with neither Overdue nor Silent
	Now     time.Time
	Cursor  string
}

// Holder is a lineage with its newest certificate.
type Holder struct {
	Lineage, Service, Serial, Kind, Caller, Provisioner, Issuer string
	Names                                                       []string
	State                                                       tally.State
	NotBefore, NotAfter, IssuedAt, Due, OverdueAt               time.Time
	Served                                                      *record.Delivery
	LineageRevoked                                              bool                 // no certificate of it can be renewed
	Reports                                                     []record.TrustReport // those that count
}

// holderColumns are what scanHolder reads. The joins are outer ones, so that the planner begins with the index
// of the view, and a lineage whose certificate is gone is still a row.
const holderColumns = `SELECT h.lineage, h.service, h.state, h.not_after, h.due, h.overdue, COALESCE(c.serial, ''), COALESCE(c.names, '[]'), COALESCE(c.kind, ''),
	COALESCE(c.caller, ''), COALESCE(c.provisioner, ''), COALESCE(c.not_before, 0), COALESCE(c.issued_at, 0), COALESCE(i.key_id, ''), d.address, d.servers, d.since,
	CASE WHEN EXISTS (SELECT 1 FROM revocations r WHERE r.lineage = h.lineage) THEN 1 ELSE 0 END
	FROM holders h LEFT JOIN certificates c ON c.id = h.certificate LEFT JOIN issuers i ON i.id = c.issuer LEFT JOIN deliveries d ON d.certificate = h.certificate`

func scanHolder(rows sqldb.Scanner, h *Holder) error {
	var end, due, overdue, from, issued, revoked int64
	var names string
	var address sql.NullString
	var servers, since optional
	if err := rows.Scan(&h.Lineage, &h.Service, &h.State, &end, &due, &overdue, &h.Serial, &names, &h.Kind,
		&h.Caller, &h.Provisioner, &from, &issued, &h.Issuer, &address, &servers, &since, &revoked); err != nil {
		return err
	}
	h.NotBefore, h.NotAfter, h.IssuedAt = sqldb.FromMillis(from), sqldb.FromMillis(end), sqldb.FromMillis(issued)
	h.Due, h.OverdueAt, h.LineageRevoked = sqldb.FromMillis(due), sqldb.FromMillis(overdue), revoked == 1
	if since.Valid {
		h.Served = &record.Delivery{Serial: h.Serial, Lineage: h.Lineage, Address: address.String, Servers: int(servers.Int64), Since: sqldb.FromMillis(since.Int64)}
	}
	_ = json.Unmarshal([]byte(names), &h.Names) // a row that somebody has damaged has no names; the log shows it
	return nil
}

// Holders returns one page of lineages and the cursor of the next one.
func (d *DB) Holders(ctx context.Context, f HolderFilter) (page []Holder, next string, err error) {
	text, args, err := d.holders(f)
	if err != nil {
		return nil, "", err
	}
	rows, err := d.q.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, "", fmt.Errorf("listing lineages: %w", err)
	}
	page, err = sqldb.Collect(rows, func(h *Holder) error { return scanHolder(rows, h) })
	if err != nil {
		return nil, "", fmt.Errorf("listing lineages: %w", err)
	}
	page, next = pageOf(page, d.limit, func(h Holder) cursor {
		switch f.Show {
		case Overdue:
			return cursor{sqldb.Millis(h.OverdueAt), h.Lineage}
		case Silent:
			return cursor{0, h.Lineage}
		}
		return cursor{sqldb.Millis(h.NotAfter), h.Lineage}
	})
	return page, next, d.addReports(ctx, page)
}

// holders returns the statement of a page.
func (d *DB) holders(f HolderFilter) (text string, args []any, err error) {
	if f.Show == "" {
		f.Show = Live
	}
	v, known := views[f.Show]
	if !known {
		return "", nil, fmt.Errorf("view %.20q: %w", f.Show, ErrCursor)
	}
	at, err := parseCursor(f.Cursor)
	if err != nil {
		return "", nil, err
	}
	text, args = holderColumns+` WHERE `+v.where, v.arg(f.Now)
	if f.Service != "" && v.key == `h.not_after` {
		text, args = text+` AND h.service = ?`, append(args, f.Service)
	}
	order := `h.lineage` + v.order
	if v.key != "" {
		order = v.key + v.order + `, ` + order
	}
	switch {
	case f.Cursor == "":
	case v.key == "":
		text, args = text+` AND h.lineage `+v.op+` ?`, append(args, at.id)
	default:
		text, args = text+` AND (`+v.key+`, h.lineage) `+v.op+` (?, ?)`, append(args, at.at, at.id)
	}
	return text + ` ORDER BY ` + order + ` LIMIT ?`, append(args, d.limit+1), nil
}

// addReports fills in which bundles the holders have reported, by one query.
func (d *DB) addReports(ctx context.Context, page []Holder) error {
	if len(page) == 0 {
		return nil
	}
	lineages := make([]any, len(page))
	for i := range page {
		lineages[i] = page[i].Lineage
	}
	by, err := d.reports(ctx, lineages)
	for i := range page {
		page[i].Reports = truststore.Counting(by[page[i].Lineage])
	}
	return err
}

const reportsText = `SELECT lineage, reporter, serial, successor, trust_digest, reported_at, due FROM trust_reports WHERE lineage IN (`

func (d *DB) reports(ctx context.Context, lineages []any) (map[string][]record.TrustReport, error) {
	by := map[string][]record.TrustReport{}
	rows, err := d.q.QueryContext(ctx, reportsText+marks(len(lineages))+`)`, lineages...)
	if err != nil {
		return nil, fmt.Errorf("reading reports: %w", err)
	}
	_, err = sqldb.Collect(rows, func(r *record.TrustReport) error {
		var at, due int64
		err := rows.Scan(&r.Lineage, &r.Reporter, &r.Serial, &r.Successor, &r.Digest, &at, &due)
		r.At, r.Due = sqldb.FromMillis(at), sqldb.FromMillis(due)
		by[r.Lineage] = append(by[r.Lineage], *r)
		return err
	})
	return by, err
}
