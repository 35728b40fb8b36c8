package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/certrow"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record"
)

const (
	defaultLimit = 100
	maxLimit     = record.MaxPage
)

// Get returns one certificate by its decimal serial, or [record.ErrNotFound].
func (s *Store) Get(ctx context.Context, serial string) (record.Certificate, error) {
	if err := s.db.Stopped(); err != nil {
		return record.Certificate{}, err
	}
	found, err := certrow.Find(ctx, s.db.Read, serial)
	return found.Certificate, err
}

// List returns one page and the cursor of the next one, "" after the last. The cursor is a
// position in the order and not an offset, so rows that are added meanwhile do not shift
// the next page.
func (s *Store) List(ctx context.Context, q record.Query) (page []record.Certificate, next string, err error) {
	text, args, limit, err := buildQuery(q)
	if err != nil {
		return nil, "", err
	}
	rows, err := s.db.Read.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, "", fmt.Errorf("listing certificates: %w", err)
	}
	var ids []int64
	page, err = sqldb.Collect(rows, func(c *record.Certificate) error {
		id, err := certrow.Scan(rows, c)
		ids = append(ids, id)
		return err
	})
	if err != nil {
		return nil, "", fmt.Errorf("listing certificates: %w", err)
	}
	if len(page) > limit {
		page = page[:limit]
		last := page[limit-1]
		next = fmt.Sprintf("%d.%d", millis(last.NotAfter), ids[limit-1])
	}
	return page, next, nil
}

// indexScan says which index a list is read by. The last two columns of the index are the
// position of a row in the list; other columns are looked up by its id.
type indexScan struct {
	from            string // FROM clause
	notAfter, id    string // columns of the position
	service, issuer string // conditions on one argument
}

// chooseIndex returns the index that excludes most rows.
func chooseIndex(q record.Query) indexScan {
	switch {
	case q.Name != "":
		return indexScan{certrow.From + ` JOIN certificate_names n ON n.id = c.id`, "n.not_after", "n.id", `c.service = ?`, issuedBy}
	case q.State == record.StateRevoked:
		// Few certificates are revoked, so the scan begins with these. COALESCE keeps the
		// planner from beginning with the index of services.
		return indexScan{` FROM revocations r LEFT JOIN certificates c ON c.id = r.certificate` + certrow.Names,
			"r.not_after", "r.certificate", `COALESCE(c.service, '') = ?`, `r.issuer = ?`}
	}
	return indexScan{certrow.From, "c.not_after", "c.id", `c.service = ?`, issuedBy}
}

const issuedBy = `c.issuer = (SELECT id FROM issuers WHERE key_id = ?)`

// buildQuery returns the SQL of a page, its arguments, and the number of rows of the page.
// Each filter is on columns that an index begins with, and the order is the rest of this index.
func buildQuery(q record.Query) (text string, args []any, limit int, err error) {
	limit = q.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	limit = min(limit, maxLimit)
	p, now := chooseIndex(q), q.Now
	if now.IsZero() {
		now = time.Now()
	}
	var where []string
	add := func(cond string, values ...any) { where, args = append(where, cond), append(args, values...) }
	if q.Name != "" {
		add(`n.name = ?`, q.Name)
	}
	if q.Service != "" {
		add(p.service, q.Service)
	}
	if q.Issuer != "" {
		add(p.issuer, strings.ToLower(q.Issuer))
	}
	if !q.ExpiresBefore.IsZero() {
		add(p.notAfter+` < ?`, millis(q.ExpiresBefore))
	}
	switch q.State {
	case "":
	case record.StateValid:
		add(p.notAfter+` > ? AND r.certificate IS NULL`, millis(now))
	case record.StateExpired:
		add(p.notAfter+` <= ? AND r.certificate IS NULL`, millis(now))
	case record.StateRevoked:
		add(`r.certificate IS NOT NULL`)
	default:
		return "", nil, 0, fmt.Errorf("state %q: want %s, %s or %s", q.State, record.StateValid, record.StateExpired, record.StateRevoked)
	}
	op, order := "<", " DESC"
	if q.SoonestFirst {
		op, order = ">", ""
	}
	if q.Cursor != "" {
		at, id, err := parseCursor(q.Cursor)
		if err != nil {
			return "", nil, 0, err
		}
		add(`(`+p.notAfter+`, `+p.id+`) `+op+` (?, ?)`, at, id)
	}
	text = `SELECT ` + certrow.Columns + p.from
	if len(where) > 0 {
		text += ` WHERE ` + strings.Join(where, ` AND `)
	}
	// One row more than asked for tells whether there is a next page.
	text += ` ORDER BY ` + p.notAfter + order + `, ` + p.id + order + ` LIMIT ?`
	return text, append(args, limit+1), limit, nil
}

// Issuers returns the subject key ids (hex) of all intermediates that have a
// certificate in the record, sorted.
func (s *Store) Issuers(ctx context.Context) ([]string, error) {
	rows, err := s.db.Read.QueryContext(ctx, `SELECT key_id FROM issuers`)
	if err != nil {
		return nil, fmt.Errorf("listing issuers: %w", err)
	}
	ids, err := sqldb.Collect(rows, func(v *string) error { return rows.Scan(v) })
	slices.Sort(ids) // not in SQL: the two databases collate differently
	return ids, err
}

func parseCursor(s string) (at, id int64, err error) {
	left, right, ok := strings.Cut(s, ".")
	if ok {
		at, err = strconv.ParseInt(left, 10, 64)
	}
	if ok && err == nil {
		id, err = strconv.ParseInt(right, 10, 64)
	}
	if !ok || err != nil {
		return 0, 0, fmt.Errorf("cursor %.40q: not one that a page returned", s)
	}
	return at, id, nil
}
