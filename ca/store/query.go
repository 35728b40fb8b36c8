package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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

// MaxPage is how many rows a page has at most.
const MaxPage = 1000

const (
	defaultLimit = 100
	maxLimit     = MaxPage
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

const columns = `c.id, c.serial, c.service, c.kind, c.provisioner, c.caller, c.lineage, c.previous, i.key_id, c.key_hash, c.names,
	c.not_before, c.not_after, c.issued_at, c.proof_until, c.der, h.der, r.revoked_at, r.reason, r.note, r.caller`

// joined has outer joins only: they leave it to the filters where a scan begins.
const joined = ` FROM certificates c LEFT JOIN revocations r ON r.certificate = c.id` + named

const named = ` LEFT JOIN issuers i ON i.id = c.issuer LEFT JOIN chains h ON h.id = c.chain`

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
	if err := s.stopped(); err != nil {
		return Certificate{}, err
	}
	return get(ctx, s.read, serial)
}

func get(ctx context.Context, q querier, serial string) (c Certificate, err error) {
	var id int64
	return c, getRow(ctx, q, serial, &id, &c)
}

func getRow(ctx context.Context, q querier, serial string, id *int64, c *Certificate) (err error) {
	*id, err = scan(q.QueryRowContext(ctx, `SELECT `+columns+joined+` WHERE c.serial = ?`, serial), c)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("certificate %s: %w", pemfile.HexSerial(serial), ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("reading certificate %s: %w", serial, err)
	}
	return nil
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

// plan is where a list begins: rows are scanned in the order of an index, which
// ends with the two columns of its position, and the others are looked up.
type plan struct {
	from            string
	notAfter, id    string // columns of the position
	service, issuer string // conditions on one argument
}

func (q Query) plan() plan {
	switch {
	case q.Name != "":
		return plan{joined + ` JOIN certificate_names n ON n.id = c.id`, "n.not_after", "n.id", `c.service = ?`, issuedBy}
	case q.State == StateRevoked:
		// Few among many, so the scan begins with them; COALESCE keeps it so.
		return plan{` FROM revocations r LEFT JOIN certificates c ON c.id = r.certificate` + named,
			"r.not_after", "r.certificate", `COALESCE(c.service, '') = ?`, `r.issuer = ?`}
	}
	return plan{joined, "c.not_after", "c.id", `c.service = ?`, issuedBy}
}

const issuedBy = `c.issuer = (SELECT id FROM issuers WHERE key_id = ?)`

// build writes the SQL. Each filter names columns that an index starts with, and
// the order is the rest of that index.
func (q Query) build() (text string, args []any, limit int, err error) {
	limit = q.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	limit = min(limit, maxLimit)
	p, now := q.plan(), q.Now
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
	case StateValid:
		add(p.notAfter+` > ? AND r.certificate IS NULL`, millis(now))
	case StateExpired:
		add(p.notAfter+` <= ? AND r.certificate IS NULL`, millis(now))
	case StateRevoked:
		add(`r.certificate IS NOT NULL`)
	default:
		return "", nil, 0, fmt.Errorf("state %q: want %s, %s or %s", q.State, StateValid, StateExpired, StateRevoked)
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
	text = `SELECT ` + columns + p.from
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
	rows, err := s.read.QueryContext(ctx, `SELECT key_id FROM issuers`)
	if err != nil {
		return nil, fmt.Errorf("listing issuers: %w", err)
	}
	ids, err := collect(rows, func(v *string) error { return rows.Scan(v) })
	slices.Sort(ids) // here: each database has its own idea of an order
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

type scanner interface{ Scan(dest ...any) error }

func scan(row scanner, c *Certificate) (id int64, err error) {
	var notBefore, notAfter, issuedAt, proof int64
	var names string
	var keyHash []byte
	var revokedAt, reason sql.NullInt64
	var note, by sql.NullString
	if err := row.Scan(&id, &c.Serial, &c.Service, &c.Kind, &c.Provisioner, &c.Caller, &c.Lineage, &c.Previous, &c.Issuer, &keyHash, &names,
		&notBefore, &notAfter, &issuedAt, &proof, &c.DER, &c.Chain, &revokedAt, &reason, &note, &by); err != nil {
		return 0, err
	}
	c.KeyHash = hex.EncodeToString(keyHash)
	c.NotBefore, c.NotAfter, c.IssuedAt = fromMillis(notBefore), fromMillis(notAfter), fromMillis(issuedAt)
	if proof != 0 {
		c.ProofUntil = fromMillis(proof)
	}
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
