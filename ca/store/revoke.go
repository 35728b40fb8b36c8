package store

import (
	"bytes"
	"context"
	"errors"
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
	err := s.change(ctx, func(tx *txn) error { return revoke(ctx, tx, req) })
	if errors.Is(err, errSpent) {
		err = ErrTokenUsed
	}
	if err != nil {
		return fmt.Errorf("revoking %s: %w", req.Serial, err)
	}
	return nil
}

func revoke(ctx context.Context, tx *txn, req RevokeRequest) error {
	if err := spend(ctx, tx, req.Token, ""); err != nil {
		return err
	}
	mark, err := nextMark(ctx, tx)
	if err != nil {
		return err
	}
	var id int64
	var c Certificate
	if err := getRow(ctx, tx, req.Serial, &id, &c); err != nil {
		return err
	}
	// A renewal that is about to commit ends first, or waits and sees this revocation.
	if err := tx.lock(ctx, lineageLock, c.Service, true); err != nil {
		return err
	}
	return addRevocation(ctx, tx, target{id, c}, req.Revocation, mark)
}

// RevokeCertificate is [Store.Revoke] for a certificate that the record may not
// have, as after a restore: it is then entered first, in the same transaction. That
// this authority issued it, and c.Service and c.Issuer, are for the caller to see.
// A certificate with the serial and not the content of one in the record is
// [ErrSerialTaken].
func (s *Store) RevokeCertificate(ctx context.Context, c Certificate, r Revocation) error {
	c.Kind, c.Caller, c.IssuedAt = Entered, r.Caller, r.RevokedAt
	row, err := newRow(Issue{Certificate: c})
	if err != nil {
		return fmt.Errorf("revoking %s: %w", c.Serial, err)
	}
	s.recall(row)
	err = s.change(ctx, func(tx *txn) error { return row.revoke(ctx, tx, r) })
	if err != nil {
		return fmt.Errorf("revoking %s: %w", c.Serial, err)
	}
	return nil
}

// revoke enters the certificate, if it is not there, and revokes it.
func (r *row) revoke(ctx context.Context, tx *txn, revocation Revocation) error {
	c := r.issue.Certificate
	// First, as all who revoke do: it also keeps two from entering the same one.
	mark, err := nextMark(ctx, tx)
	if err != nil {
		return err
	}
	var id int64
	var have Certificate
	err = getRow(ctx, tx, c.Serial, &id, &have)
	if errors.Is(err, ErrNotFound) {
		if err := r.insert(ctx, tx); err != nil {
			return err
		}
		err = getRow(ctx, tx, c.Serial, &id, &have)
	}
	switch {
	case err != nil:
		return err
	case !bytes.Equal(have.DER, c.DER):
		return ErrSerialTaken
	}
	if err := tx.lock(ctx, lineageLock, have.Service, true); err != nil {
		return err
	}
	return addRevocation(ctx, tx, target{id, have}, revocation, mark)
}

// target is a certificate to revoke, with its number in the table.
type target struct {
	id int64
	c  Certificate
}

func addRevocation(ctx context.Context, tx *txn, t target, r Revocation, mark int64) error {
	c := t.c
	res, err := tx.ExecContext(ctx, `INSERT INTO revocations (certificate, serial, lineage, issuer, not_after, revoked_at, reason, note, caller, mark)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		t.id, c.Serial, c.Lineage, c.Issuer, millis(c.NotAfter), millis(r.RevokedAt), r.Reason, r.Note, r.Caller, mark)
	if err != nil {
		return fmt.Errorf("inserting the revocation: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, ErrAlreadyRevoked)
	}
	made := revocationRow{r, c.Lineage, c.Issuer, c.NotAfter, mark}
	made.Serial = c.Serial
	_, err = addEvent(ctx, tx, Event{At: r.RevokedAt, Kind: revoked, Caller: r.Caller, Service: c.Service, Serial: c.Serial, Detail: r.Note}, made.subject())
	return err
}

// LineageRevoked reports whether any certificate of a lineage was revoked: a
// thief who renewed before the owner noticed must not keep the successor.
func (s *Store) LineageRevoked(ctx context.Context, lineage string) (bool, error) {
	if err := s.stopped(); err != nil {
		return false, err
	}
	return lineageRevoked(ctx, s.read, lineage)
}

func lineageRevoked(ctx context.Context, q querier, lineage string) (found bool, err error) {
	if err = q.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM revocations WHERE lineage = ?)`, lineage).Scan(&found); err != nil {
		return false, fmt.Errorf("looking up lineage %s: %w", lineage, err)
	}
	return found, nil
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
