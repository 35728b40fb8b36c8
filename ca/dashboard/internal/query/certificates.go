package query

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/certrow"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/tally"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
)

// Certificate returns a certificate by its decimal serial, or [record.ErrNotFound].
func (d *DB) Certificate(ctx context.Context, serial string) (record.Certificate, error) {
	found, err := certrow.Find(ctx, d.q, serial)
	return found.Certificate, err
}

// ByFingerprint returns the serial of the certificate with a fingerprint, 64 hex digits in lower case,
// or [record.ErrNotFound].
func (d *DB) ByFingerprint(ctx context.Context, fingerprint string) (serial string, err error) {
	sum, err := hex.DecodeString(fingerprint)
	if err != nil || len(sum) != sha256.Size {
		return "", errors.New("not a fingerprint")
	}
	rows, err := d.q.QueryContext(ctx, fingerprintText, tally.Prefix([sha256.Size]byte(sum)))
	if err != nil {
		return "", fmt.Errorf("looking up a fingerprint: %w", err)
	}
	type hit struct {
		serial string
		der    []byte
	}
	found, err := sqldb.Collect(rows, func(h *hit) error { return rows.Scan(&h.serial, &h.der) })
	if err != nil {
		return "", fmt.Errorf("looking up a fingerprint: %w", err)
	}
	for _, h := range found {
		if sha256.Sum256(h.der) == [sha256.Size]byte(sum) {
			return h.serial, nil
		}
	}
	return "", fmt.Errorf("fingerprint %.16s: %w", fingerprint, record.ErrNotFound)
}

// fingerprintText finds by the first bytes. Who makes several certificates with the same ones gets none of
// another's: the caller compares the whole.
const fingerprintText = `SELECT c.serial, c.der FROM fingerprints f JOIN certificates c ON c.id = f.certificate WHERE f.prefix = ? LIMIT 16`

// Member is a certificate of a lineage, in short.
type Member struct {
	Serial, Kind        string
	NotBefore, NotAfter time.Time
	Revoked             bool
}

// Lineage returns the newest certificates of a lineage, those that end last first, and whether there are
// more than a page has.
func (d *DB) Lineage(ctx context.Context, lineage string) (list []Member, more bool, err error) {
	rows, err := d.q.QueryContext(ctx, lineageText, lineage, d.limit+1)
	if err != nil {
		return nil, false, fmt.Errorf("listing a lineage: %w", err)
	}
	list, err = sqldb.Collect(rows, func(m *Member) error {
		var from, to, revoked int64
		err := rows.Scan(&m.Serial, &m.Kind, &from, &to, &revoked)
		m.NotBefore, m.NotAfter, m.Revoked = sqldb.FromMillis(from), sqldb.FromMillis(to), revoked == 1
		return err
	})
	if len(list) > d.limit {
		return list[:d.limit], true, err
	}
	return list, false, err
}

// lineageText reads an index that ends with the end of certificates, so the newest come first.
const lineageText = `SELECT c.serial, c.kind, c.not_before, c.not_after, CASE WHEN EXISTS (SELECT 1 FROM revocations r WHERE r.certificate = c.id) THEN 1 ELSE 0 END
	FROM certificates c WHERE c.lineage = ? ORDER BY c.not_after DESC LIMIT ?`

// Event is an event with its place in the log, -1 if it has none yet.
type Event struct {
	record.Event
	Index int64
}

// eventColumns are what events reads. The place in the log is found by an index on the event.
const eventColumns = `SELECT e.id, e.at, e.kind, e.caller, e.service, e.serial, e.rule, e.detail, l.idx FROM events e LEFT JOIN log_entries l ON l.event = e.id`

// EventsOf returns what happened to a certificate, the oldest first.
func (d *DB) EventsOf(ctx context.Context, serial string) ([]Event, error) {
	if serial == "" { // the index has no events without a serial
		return nil, nil
	}
	list, err := d.events(ctx, eventsOfText, serial, d.limit)
	slices.SortFunc(list, func(a, b Event) int { return cmp.Compare(a.ID, b.ID) }) // the index is not in their order
	return list, err
}

// eventsOfText has a condition that looks needless: the index has only events with a serial, and a planner
// uses it only if the statement says so.
const eventsOfText = eventColumns + ` WHERE e.serial = ? AND e.serial <> '' LIMIT ?`

// Events returns one page of events, the newest first, and the cursor of the next one. kind "" is all
// kinds.
func (d *DB) Events(ctx context.Context, kind, after string) (page []Event, next string, err error) {
	at, err := parseCursor(after)
	if err != nil {
		return nil, "", err
	}
	text, args := eventColumns, []any{}
	switch {
	case kind != "" && after != "":
		text, args = text+` WHERE e.kind = ? AND e.id < ?`, append(args, kind, at.at)
	case kind != "":
		text, args = text+` WHERE e.kind = ?`, append(args, kind)
	case after != "":
		text, args = text+` WHERE e.id < ?`, append(args, at.at)
	}
	if page, err = d.events(ctx, text+` ORDER BY e.id DESC LIMIT ?`, append(args, d.limit+1)...); err != nil {
		return nil, "", err
	}
	page, next = pageOf(page, d.limit, func(e Event) cursor { return cursor{at: e.ID} })
	return page, next, nil
}

func (d *DB) events(ctx context.Context, text string, args ...any) ([]Event, error) {
	rows, err := d.q.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, fmt.Errorf("reading events: %w", err)
	}
	return sqldb.Collect(rows, func(e *Event) error {
		var at int64
		var index optional
		err := rows.Scan(&e.ID, &at, &e.Kind, &e.Caller, &e.Service, &e.Serial, &e.Rule, &e.Detail, &index)
		e.At, e.Index = sqldb.FromMillis(at), -1
		if index.Valid {
			e.Index = index.Int64
		}
		return err
	})
}

// Revocation is a revocation with its certificate.
type Revocation struct {
	id int64
	record.Revocation
	Service, Lineage, Issuer string
	NotAfter                 time.Time
}

// Revocations returns one page, the newest first, and the cursor of the next one.
func (d *DB) Revocations(ctx context.Context, after string) (page []Revocation, next string, err error) {
	at, err := parseCursor(after)
	if err != nil {
		return nil, "", err
	}
	text, args := revocationsText, []any{}
	if after != "" {
		text, args = text+` WHERE r.id < ?`, append(args, at.at)
	}
	rows, err := d.q.QueryContext(ctx, text+` ORDER BY r.id DESC LIMIT ?`, append(args, d.limit+1)...)
	if err != nil {
		return nil, "", fmt.Errorf("listing revocations: %w", err)
	}
	page, err = sqldb.Collect(rows, func(r *Revocation) error {
		var revoked, end int64
		err := rows.Scan(&r.id, &r.Serial, &r.Lineage, &r.Issuer, &end, &revoked, &r.Reason, &r.Note, &r.Caller, &r.Service)
		r.RevokedAt, r.NotAfter = sqldb.FromMillis(revoked), sqldb.FromMillis(end)
		return err
	})
	if err != nil {
		return nil, "", fmt.Errorf("listing revocations: %w", err)
	}
	page, next = pageOf(page, d.limit, func(r Revocation) cursor { return cursor{at: r.id} })
	return page, next, nil
}

// revocationsText joins by outer joins: a revocation must not vanish with a row that somebody has removed.
const revocationsText = `SELECT r.id, r.serial, r.lineage, r.issuer, r.not_after, r.revoked_at, r.reason, r.note, r.caller, COALESCE(c.service, '')
	FROM revocations r LEFT JOIN certificates c ON c.id = r.certificate`

// Issuer is what the record has under an intermediate, each up to Most.
type Issuer struct {
	KeyID   string // subject key id, hex
	Live    int64  // certificates that have not ended, superseded ones too
	Revoked int64  // entries of its revocation list
}

// Issuers returns all intermediates that have ever issued.
func (d *DB) Issuers(ctx context.Context, now time.Time) ([]Issuer, error) {
	rows, err := d.q.QueryContext(ctx, `SELECT key_id FROM issuers ORDER BY id DESC LIMIT ?`, d.limit)
	if err != nil {
		return nil, fmt.Errorf("listing issuers: %w", err)
	}
	list, err := sqldb.Collect(rows, func(i *Issuer) error { return rows.Scan(&i.KeyID) })
	for i := range list {
		if err == nil {
			list[i].Live, err = d.count(ctx, issuedText, list[i].KeyID, sqldb.Millis(now))
		}
		if err == nil {
			list[i].Revoked, err = d.count(ctx, revokedText, list[i].KeyID, sqldb.Millis(now))
		}
	}
	return list, err
}

const (
	issuedText  = `SELECT 1 FROM certificates WHERE issuer = (SELECT id FROM issuers WHERE key_id = ?) AND not_after > ?`
	revokedText = `SELECT 1 FROM revocations WHERE issuer = ? AND not_after > ?`
)

// Own returns the newest certificate of the authority itself, or [record.ErrNotFound].
func (d *DB) Own(ctx context.Context) (record.Certificate, error) {
	list, _, err := d.WithLimit(1).Events(ctx, kinds.SelfIssued, "")
	if err != nil || len(list) == 0 {
		return record.Certificate{}, errors.Join(err, record.ErrNotFound)
	}
	return d.Certificate(ctx, list[0].Serial)
}
