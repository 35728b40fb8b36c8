package ca

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/artstore/artstore-pki/ca/store"
)

// Record is the record of an authority for its operator: to look at, and to
// revoke. It works beside a running serve, which notices revocations at once.
type Record struct {
	store *store.Store
}

// OpenRecord opens the record in a state directory. No password is needed.
func OpenRecord(ctx context.Context, dir string) (*Record, error) {
	// pki.yaml says that this is a state directory; store.Open would make a new record anywhere.
	if _, err := os.Stat(filepath.Join(dir, configFile)); err != nil {
		return nil, fmt.Errorf("opening the record: %w", err)
	}
	s, err := store.Open(ctx, filepath.Join(dir, recordFile))
	if err != nil {
		return nil, err
	}
	return &Record{s}, nil
}

// List returns one page and the cursor of the next, "" after the last.
func (r *Record) List(ctx context.Context, q store.Query) ([]store.Certificate, string, error) {
	if q.Name != "" {
		name, err := canonicalName(q.Name)
		if err != nil {
			return nil, "", err
		}
		q.Name = name
	}
	return r.store.List(ctx, q)
}

// Show returns one certificate. The serial may be decimal, hex after 0x, or hex
// with colons; an unknown one is [store.ErrNotFound].
func (r *Record) Show(ctx context.Context, serial string) (store.Certificate, error) {
	serial, err := store.ParseSerial(serial)
	if err != nil {
		return store.Certificate{}, err
	}
	return r.store.Get(ctx, serial)
}

// Revoke revokes one certificate in the name of the operator. reason is one of
// RFC 5280 §5.3.1. Errors: [store.ErrNotFound], [store.ErrAlreadyRevoked].
func (r *Record) Revoke(ctx context.Context, serial string, reason int, note string) error {
	serial, err := store.ParseSerial(serial)
	if err != nil {
		return err
	}
	if !validReason(reason) {
		return fmt.Errorf("revoking %s: %d is not a reason of RFC 5280", serial, reason)
	}
	return r.store.Revoke(ctx, store.RevokeRequest{Revocation: store.Revocation{
		Serial: serial, RevokedAt: time.Now(), Reason: reason, Note: clip(note), Caller: operator,
	}})
}

// operator is how whoever holds the state directory stands in the record.
const operator = "operator"

// Events returns up to limit entries of the log after the given id, oldest
// first; kind "" is all of them.
func (r *Record) Events(ctx context.Context, kind string, after int64, limit int) ([]store.Event, error) {
	return r.store.Events(ctx, kind, after, limit)
}

// Close closes the record.
func (r *Record) Close() error {
	return r.store.Close()
}
