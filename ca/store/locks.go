package store

import (
	"context"
	"fmt"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
)

// Classes of advisory locks. The numbers are in every program that shares a database.
const (
	// lineageLock is keyed by service: renewals take it shared, revocations exclusive.
	// There is one key per service, so that revoking a set takes one lock.
	lineageLock = 1
	// memberLock is keyed by lineage: the certificates that join one are counted one
	// after the other.
	memberLock = 2
	// 3 is sqldb.TrustLock: those who sign take it shared, a change of the trust exclusive.
)

// lockService waits until no renewal of a service is about to commit, and lets none
// begin until the transaction ends. With SQLite there is only one transaction at a time.
func lockService(ctx context.Context, tx *sqldb.Txn, service string) error {
	if !tx.Concurrent {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(?::int, hashtext(?))`, lineageLock, service); err != nil {
		return fmt.Errorf("locking: %w", err)
	}
	return nil
}

// lockLineage waits until no other renewal of the lineage and no revocation of the service
// is about to commit, and no change of the trust. Renewals of other lineages may run. It is
// one round trip.
func lockLineage(ctx context.Context, tx *sqldb.Txn, service, lineage string) error {
	if !tx.Concurrent {
		return nil
	}
	const text = `SELECT pg_advisory_xact_lock_shared(?::int, 0), pg_advisory_xact_lock_shared(?::int, hashtext(?)), pg_advisory_xact_lock(?::int, hashtext(?))`
	if _, err := tx.ExecContext(ctx, text, sqldb.TrustLock, lineageLock, service, memberLock, lineage); err != nil {
		return fmt.Errorf("locking: %w", err)
	}
	return nil
}
