package store

import (
	"context"
	"database/sql"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// Revocation says that, when and why a certificate was revoked.
type Revocation struct {
	Serial    string    `json:"serial"` // decimal
	RevokedAt time.Time `json:"revoked_at"`
	Reason    int       `json:"reason"` // RFC 5280 §5.3.1
	Note      string    `json:"note,omitempty"`
	Caller    string    `json:"caller"`
}

// RevokeRequest is one revocation.
type RevokeRequest struct {
	Revocation
	Token Token // spent in the same transaction, if set
}

// Revoke marks a certificate as revoked and records who did it, in one
// transaction. An unknown serial is [ErrNotFound], a second time
// [ErrAlreadyRevoked], a spent token [ErrTokenUsed].
func (s *Store) Revoke(ctx context.Context, req RevokeRequest) error {
	err := s.change(ctx, func(tx *sql.Tx) error {
		spent, err := spentOn(ctx, tx, req.Token)
		if err != nil {
			return err
		}
		if spent != "" {
			return ErrTokenUsed
		}
		c, err := get(ctx, tx, req.Serial)
		if err != nil {
			return err
		}
		if c.Revocation != nil {
			return ErrAlreadyRevoked
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO revocations (serial, lineage, issuer, not_after, revoked_at, reason, note, caller)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			c.Serial, c.Lineage, c.Issuer, millis(c.NotAfter), millis(req.RevokedAt), req.Reason, req.Note, req.Caller); err != nil {
			return err
		}
		if req.Token != (Token{}) {
			if err := spend(ctx, tx, req.Token, ""); err != nil {
				return err
			}
		}
		return addEvent(ctx, tx, Event{At: req.RevokedAt, Kind: revoked, Caller: req.Caller, Service: c.Service, Serial: c.Serial, Detail: req.Note})
	})
	if err != nil {
		return fmt.Errorf("revoking %s: %w", req.Serial, err)
	}
	return nil
}

// LineageRevoked reports whether any certificate of a lineage was revoked: a
// thief who renewed before the owner noticed must not keep the successor.
func (s *Store) LineageRevoked(ctx context.Context, lineage string) (bool, error) {
	return lineageRevoked(ctx, s.read, lineage)
}

func lineageRevoked(ctx context.Context, q queryer, lineage string) (found bool, err error) {
	if err = q.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM revocations WHERE lineage = ?)`, lineage).Scan(&found); err != nil {
		return false, fmt.Errorf("looking up lineage %s: %w", lineage, err)
	}
	return found, nil
}

// Revoked returns the revoked certificates of an issuer (subject key id, hex)
// that have not expired at now, oldest revocation first.
func (s *Store) Revoked(ctx context.Context, issuer string, now time.Time) (_ []Revocation, err error) {
	rows, err := s.read.QueryContext(ctx, `SELECT serial, revoked_at, reason, note, caller FROM revocations
		WHERE issuer = ? AND not_after > ? ORDER BY id`, issuer, millis(now))
	if err != nil {
		return nil, fmt.Errorf("reading revocations: %w", err)
	}
	return collect(rows, func(r *Revocation) error {
		var at int64
		err := rows.Scan(&r.Serial, &at, &r.Reason, &r.Note, &r.Caller)
		r.RevokedAt = fromMillis(at)
		return err
	})
}

// RevocationMark grows with every revocation, by whatever process: a cached
// list made at the same mark is complete.
func (s *Store) RevocationMark(ctx context.Context) (mark int64, err error) {
	if err = s.read.QueryRowContext(ctx, `SELECT COALESCE(MAX(id), 0) FROM revocations`).Scan(&mark); err != nil {
		return 0, fmt.Errorf("reading revocations: %w", err)
	}
	return mark, nil
}

// ParseSerial brings a serial to the decimal form of the record. It takes
// decimal digits, hex after 0x, and hex with colons as openssl prints it.
func ParseSerial(s string) (string, error) {
	text, base := strings.TrimSpace(s), 10
	switch {
	case strings.HasPrefix(text, "0x"), strings.HasPrefix(text, "0X"):
		text, base = text[2:], 16
	case strings.Contains(text, ":"):
		text, base = strings.ReplaceAll(text, ":", ""), 16
	}
	n, ok := new(big.Int).SetString(text, base)
	// RFC 5280 §4.1.2.2: positive, at most 20 octets.
	if !ok || len(text) > 50 || strings.ContainsAny(text, "_+-") || n.Sign() <= 0 || n.BitLen() > 160 {
		return "", fmt.Errorf("serial %.60q: want decimal digits, 0x and hex, or hex with colons", s)
	}
	return n.String(), nil
}
