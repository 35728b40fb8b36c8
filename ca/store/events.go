package store

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/eventlog"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/truststore"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
)

// Refuse records that an authenticated caller asked for what the rules deny.
func (s *Store) Refuse(ctx context.Context, e record.Event) error {
	e.Kind = kinds.Refused
	return s.Tell(ctx, e)
}

// Tell records an event that is about no certificate of the record.
func (s *Store) Tell(ctx context.Context, e record.Event) error {
	err := s.db.Change(ctx, func(tx *sqldb.Txn) error {
		_, err := eventlog.Append(ctx, tx, e, [sha256.Size]byte{})
		return err
	})
	if err != nil {
		return fmt.Errorf("recording an event: %w", err)
	}
	return nil
}

// Events returns up to limit events after the given id, oldest first. kind
// selects one kind, "" all.
func (s *Store) Events(ctx context.Context, kind string, after int64, limit int) ([]record.Event, error) {
	return s.events(ctx, eventRange{kind: kind, after: after, order: ` ORDER BY id LIMIT ?`, limit: limit})
}

// LatestEvents returns the newest events, limit of them at most, oldest first.
func (s *Store) LatestEvents(ctx context.Context, kind string, limit int) ([]record.Event, error) {
	out, err := s.events(ctx, eventRange{kind: kind, order: ` ORDER BY id DESC LIMIT ?`, limit: limit})
	slices.Reverse(out)
	return out, err
}

// eventRange selects events from the oldest or from the newest.
type eventRange struct {
	kind  string // "" means all
	after int64
	order string // the end of the statement
	limit int
}

func (s *Store) events(ctx context.Context, r eventRange) ([]record.Event, error) {
	text, args := `SELECT id, at, kind, caller, service, serial, rule, detail FROM events WHERE id > ?`, []any{r.after}
	if r.kind != "" {
		text, args = text+` AND kind = ?`, append(args, r.kind)
	}
	rows, err := s.db.Read.QueryContext(ctx, text+r.order, append(args, min(max(r.limit, 1), maxLimit))...)
	if err != nil {
		return nil, fmt.Errorf("reading events: %w", err)
	}
	return sqldb.Collect(rows, func(e *record.Event) error {
		var at int64
		err := rows.Scan(&e.ID, &at, &e.Kind, &e.Caller, &e.Service, &e.Serial, &e.Rule, &e.Detail)
		e.At = fromMillis(at)
		return err
	})
}

// SweepTokens deletes spent tokens that expired before the given moment. Their own claim
// refuses them from then on, so before must be earlier than now by the clock leeway that the
// verification of tokens allows.
func (s *Store) SweepTokens(ctx context.Context, before time.Time) error {
	err := s.db.Change(ctx, func(tx *sqldb.Txn) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM used_tokens WHERE expires < ?`, millis(before))
		return err
	})
	if err != nil {
		return fmt.Errorf("sweeping tokens: %w", err)
	}
	return nil
}

// ReportTrust notes which trust bundle is in effect at a process that has shown a certificate.
func (s *Store) ReportTrust(ctx context.Context, r record.TrustReport) error {
	if err := s.db.Change(ctx, func(tx *sqldb.Txn) error { return truststore.WriteReport(ctx, tx, r) }); err != nil {
		return fmt.Errorf("recording a trust digest: %w", err)
	}
	return nil
}
