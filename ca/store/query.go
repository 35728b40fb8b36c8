package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/pemfile"
)

// States of a certificate. Revoked wins over expired: it is the fact that
// somebody will look for.
const (
	StateValid   = "valid"
	StateExpired = "expired"
	StateRevoked = "revoked"
)

const (
	defaultLimit = 100
	maxLimit     = 1000
)

// Query selects certificates; the zero value selects all. Filters combine with "and".
type Query struct {
	Service       string    // exact
	Name          string    // exact name in the certificate: DNS, IP or URI
	Issuer        string    // subject key id of the intermediate, hex
	State         string    // StateValid, StateExpired or StateRevoked; "" is any
	ExpiresBefore time.Time // exclusive; zero is any
	SoonestFirst  bool      // order by expiry upwards; the default is downwards
	Limit         int       // rows per page; 0 means 100, more than 1000 means 1000
	Cursor        string    // what the page before returned
	Now           time.Time // the moment that state is judged at; zero means now
}

type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

const columns = `c.id, c.serial, c.service, c.kind, c.provisioner, c.caller, c.lineage, c.previous, c.issuer, c.key_hash, c.names,
	c.not_before, c.not_after, c.issued_at, c.der, c.chain, r.revoked_at, r.reason, r.note, r.caller`

const joined = ` FROM certificates c LEFT JOIN revocations r ON r.serial = c.serial`

// State says what the certificate is at the given moment.
func (c *Certificate) State(now time.Time) string {
	switch {
	case c.Revocation != nil:
		return StateRevoked
	case !now.Before(c.NotAfter):
		return StateExpired
	}
	return StateValid
}

// Get returns one certificate by its decimal serial, or [ErrNotFound].
func (s *Store) Get(ctx context.Context, serial string) (Certificate, error) {
	return get(ctx, s.read, serial)
}

func get(ctx context.Context, q queryer, serial string) (Certificate, error) {
	var c Certificate
	_, err := scan(q.QueryRowContext(ctx, `SELECT `+columns+joined+` WHERE c.serial = ?`, serial), &c)
	if errors.Is(err, sql.ErrNoRows) {
		return c, fmt.Errorf("certificate %s: %w", pemfile.HexSerial(serial), ErrNotFound)
	}
	if err != nil {
		return c, fmt.Errorf("reading certificate %s: %w", serial, err)
	}
	return c, nil
}

// List returns one page and the cursor of the next one, "" after the last. The
// cursor is a position, not an offset: rows that come in between shift nothing.
func (s *Store) List(ctx context.Context, q Query) (page []Certificate, next string, err error) {
	text, args, limit, err := q.build()
	if err != nil {
		return nil, "", err
	}
	rows, err := s.read.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, "", fmt.Errorf("listing certificates: %w", err)
	}
	var ids []int64
	page, err = collect(rows, func(c *Certificate) error {
		id, err := scan(rows, c)
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

// build writes the SQL. Each filter names columns that an index starts with, and
// the order is the rest of that index.
func (q Query) build() (text string, args []any, limit int, err error) {
	limit = q.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	limit = min(limit, maxLimit)
	now := q.Now
	if now.IsZero() {
		now = time.Now()
	}
	from, sort := joined, "c.not_after %[1]s, c.id %[1]s"
	position := "c.not_after, c.id"
	var where []string
	add := func(cond string, values ...any) { where, args = append(where, cond), append(args, values...) }
	if q.Name != "" {
		from += ` JOIN certificate_names n ON n.id = c.id`
		sort, position = "n.not_after %[1]s, n.id %[1]s", "n.not_after, n.id" // of the index that is scanned
		add(`n.name = ?`, q.Name)
	}
	if q.Service != "" {
		add(`c.service = ?`, q.Service)
	}
	if q.Issuer != "" {
		add(`c.issuer = ?`, strings.ToLower(q.Issuer))
	}
	if !q.ExpiresBefore.IsZero() {
		add(`c.not_after < ?`, millis(q.ExpiresBefore))
	}
	switch q.State {
	case "":
	case StateValid:
		add(`c.not_after > ? AND r.serial IS NULL`, millis(now))
	case StateExpired:
		add(`c.not_after <= ? AND r.serial IS NULL`, millis(now))
	case StateRevoked:
		add(`r.serial IS NOT NULL`)
	default:
		return "", nil, 0, fmt.Errorf("state %q: want %s, %s or %s", q.State, StateValid, StateExpired, StateRevoked)
	}
	op, order := "<", "DESC"
	if q.SoonestFirst {
		op, order = ">", "ASC"
	}
	if q.Cursor != "" {
		at, id, err := parseCursor(q.Cursor)
		if err != nil {
			return "", nil, 0, err
		}
		add(`(`+position+`) `+op+` (?, ?)`, at, id)
	}
	text = `SELECT ` + columns + from
	if len(where) > 0 {
		text += ` WHERE ` + strings.Join(where, ` AND `)
	}
	// One row more than asked for tells whether there is a next page.
	text += ` ORDER BY ` + fmt.Sprintf(sort, order) + ` LIMIT ` + strconv.Itoa(limit+1)
	return text, args, limit, nil
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

type scanner interface{ Scan(dest ...any) error }

func scan(row scanner, c *Certificate) (id int64, err error) {
	var notBefore, notAfter, issuedAt int64
	var names string
	var revokedAt, reason sql.NullInt64
	var note, by sql.NullString
	if err := row.Scan(&id, &c.Serial, &c.Service, &c.Kind, &c.Provisioner, &c.Caller, &c.Lineage, &c.Previous, &c.Issuer, &c.KeyHash, &names,
		&notBefore, &notAfter, &issuedAt, &c.DER, &c.Chain, &revokedAt, &reason, &note, &by); err != nil {
		return 0, err
	}
	c.NotBefore, c.NotAfter, c.IssuedAt = fromMillis(notBefore), fromMillis(notAfter), fromMillis(issuedAt)
	if revokedAt.Valid {
		c.Revocation = &Revocation{Serial: c.Serial, RevokedAt: fromMillis(revokedAt.Int64), Reason: int(reason.Int64), Note: note.String, Caller: by.String}
	}
	return id, json.Unmarshal([]byte(names), &c.Names)
}

// collect reads all rows and closes them.
func collect[T any](rows *sql.Rows, scan func(*T) error) (_ []T, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	var out []T
	for rows.Next() {
		var v T
		if err := scan(&v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}
