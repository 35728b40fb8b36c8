package store

import (
	"context"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/artstore/artstore-pki/ca/internal/eventlog"
	"github.com/artstore/artstore-pki/ca/translog"
)

// Errors of the log that callers match.
var (
	// ErrLog reports that what the database holds as the log does not continue the
	// head that was signed last.
	ErrLog = eventlog.ErrLog
	// ErrRolledBack is an [ErrLog]: the record is an older state of itself, or another
	// record took its place. Events since then are missing, and among them revocations.
	ErrRolledBack = eventlog.ErrRolledBack
	// ErrNoHead reports a record whose log has no signed head.
	ErrNoHead = eventlog.ErrNoHead
	// ErrUnsequenced reports events that have no place in the log yet. A running authority
	// gives them their places within a second.
	ErrUnsequenced = eventlog.ErrUnsequenced
)

// Begin makes an empty database a record: it signs the head of the empty log
// (RFC 6962 §2.1) and returns it. From then on the record names its authority, and a record
// that was emptied differs from a new one. A database with a log is [ErrNotEmpty].
func (s *Store) Begin(ctx context.Context, key *translog.Key) (head []byte, err error) {
	return s.log.Begin(ctx, key)
}

// Withdraw deletes a head that Begin has returned, unless an event was recorded since.
func (s *Store) Withdraw(ctx context.Context, head []byte) error { return s.log.Withdraw(ctx, head) }

// Resume returns the newest signed head, as text and opened, after it has checked
// that the log goes on from known, a head that the caller kept (the zero value for
// none). Errors: [ErrNoHead]; [translog.ErrForeign] for the record of another
// authority; [ErrRolledBack].
func (s *Store) Resume(ctx context.Context, v translog.Verifier, known translog.Head) (text []byte, newest translog.Head, err error) {
	return s.log.Resume(ctx, v, known)
}

// Sequence gives committed events their places in the log, in the order of their ids, signs
// the new head and returns it. If no event waits, or another process sequences at this
// moment, it returns the newest head in the database, nil before the first. more says that
// events are left for another call.
//
// seen is the newest head that the caller knows, zero for none. If the head in the database
// is older, or another one of the same size, the error is [ErrRolledBack], and nothing is
// written until a later call finds the log in order again. Other changes of the log are
// [ErrLog], and stop only the signing.
func (s *Store) Sequence(ctx context.Context, key *translog.Key, seen translog.Head) (head []byte, more bool, err error) {
	return s.log.Sequence(ctx, key, seen)
}

// LogHead returns the newest signed head, nil if nothing was signed yet.
func (s *Store) LogHead(ctx context.Context) ([]byte, error) { return s.log.Head(ctx) }

// LogConsistency proves that the log of size to begins with the log of size from
// (RFC 6962 §2.1.2). Neither may be larger than the head; an error is [ErrLog]
// when the database no longer holds what the head signs.
func (s *Store) LogConsistency(ctx context.Context, head translog.Head, from, to int64) ([]tlog.Hash, error) {
	return s.log.Consistency(ctx, head, from, to)
}

// LogEntry returns an entry, made again from the rows that are stored now, with its proof in
// the tree of the head. [record.ErrNotFound] means that the head has no such index, [ErrLog]
// that the rows are not those that were logged.
func (s *Store) LogEntry(ctx context.Context, head translog.Head, index int64) (translog.Inclusion, error) {
	return s.log.Entry(ctx, head, index)
}

// VerifyLog makes every entry again from the rows that are stored now. It compares entries
// with their leaves, leaves with the signed head, and the beginning of the log with each kept
// head. It reads one snapshot, in pages, while an authority may go on writing. An error means
// that the log could not be read; faults of the log are in the report.
func (s *Store) VerifyLog(ctx context.Context, check translog.Check) (translog.Report, error) {
	return s.log.Verify(ctx, check)
}

// Prune removes up to limit certificates (500 at most) that expired before the
// given moment, with their revocations and events, in one transaction, and
// returns how many. Call it until that is less than limit. A lineage is removed only
// when all its certificates have expired: until then, the revocation of an expired one
// is what stops the others from renewing. Refusals stay. See [ErrUnsequenced].
func (s *Store) Prune(ctx context.Context, caller string, before time.Time, limit int) (removed int, err error) {
	return s.log.Prune(ctx, caller, before, limit)
}
