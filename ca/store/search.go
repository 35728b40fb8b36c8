package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/artstore/artstore-pki/ca/internal/certrow"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record"
)

// Search returns one page of the certificates that have a name with the prefix,
// in the order of names, and the cursor of the next page, "" after the last. A
// certificate with several such names is returned once, so a page may have fewer rows
// than its limit. An empty prefix is an error; [Store.List] lists all certificates.
func (s *Store) Search(ctx context.Context, q record.Search) (page []record.Certificate, next string, err error) {
	if err := checkPrefix(q.Prefix); err != nil {
		return nil, "", err
	}
	limit := q.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	limit = min(limit, maxLimit)
	// Names with a prefix are a range of the index: it begins with the prefix, and ends before
	// the prefix with its last byte increased by one.
	last := len(q.Prefix) - 1
	text, args := `SELECT n.name, n.not_after, `+certrow.Columns+certrow.From+` JOIN certificate_names n ON n.id = c.id WHERE n.name >= ? AND n.name < ?`,
		[]any{q.Prefix, q.Prefix[:last] + string(rune(q.Prefix[last]+1))}
	if q.Cursor != "" {
		at, err := parseSearchCursor(q.Cursor)
		if err != nil {
			return nil, "", err
		}
		text, args = text+` AND (n.name, n.not_after, n.id) > (?, ?, ?)`, append(args, at.name, at.notAfter, at.id)
	}
	rows, err := s.db.Read.QueryContext(ctx, text+` ORDER BY n.name, n.not_after, n.id LIMIT ?`, append(args, limit+1)...)
	if err != nil {
		return nil, "", fmt.Errorf("searching certificates: %w", err)
	}
	found, err := sqldb.Collect(rows, func(h *hit) (err error) {
		h.id, err = certrow.Scan(prefixed{rows, []any{&h.name, &h.notAfter}}, &h.cert)
		return err
	})
	if err != nil {
		return nil, "", fmt.Errorf("searching certificates: %w", err)
	}
	if len(found) > limit {
		found = found[:limit]
		next = found[limit-1].cursor()
	}
	for _, h := range found {
		if h.first(q.Prefix) {
			page = append(page, h.cert)
		}
	}
	return page, next, nil
}

// checkPrefix refuses a prefix that no name can have: it must be printable ASCII.
func checkPrefix(p string) error {
	if p == "" || len(p) > 253 || strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("search %.60q: want the beginning of a name", p)
	}
	return nil
}

// hit is a name that was found, with its certificate.
type hit struct {
	name         string
	notAfter, id int64
	cert         record.Certificate
}

// first reports whether this is the first name of its certificate in the order of the search.
func (h *hit) first(prefix string) bool {
	for _, n := range h.cert.Names {
		if n < h.name && strings.HasPrefix(n, prefix) {
			return false
		}
	}
	return true
}

func (h *hit) cursor() string { return fmt.Sprintf("%d.%d.%s", h.notAfter, h.id, h.name) }

func parseSearchCursor(s string) (h hit, err error) {
	parts := strings.SplitN(s, ".", 3)
	if len(parts) == 3 {
		h.name = parts[2]
		h.notAfter, err = strconv.ParseInt(parts[0], 10, 64)
	}
	if len(parts) == 3 && err == nil {
		h.id, err = strconv.ParseInt(parts[1], 10, 64)
	}
	if len(parts) != 3 || err != nil || checkPrefix(h.name) != nil {
		return hit{}, fmt.Errorf("cursor %.40q: not one that a page of this search returned", s)
	}
	return h, nil
}

// prefixed is a row with more columns before those of a certificate.
type prefixed struct {
	rows  sqldb.Scanner
	first []any
}

func (p prefixed) Scan(dest ...any) error { return p.rows.Scan(append(p.first, dest...)...) }
