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
	// record took its place. What was recorded since is missing, revocations too.
	ErrRolledBack = eventlog.ErrRolledBack
	// ErrNoHead reports a record whose log has no signed head.
	ErrNoHead = eventlog.ErrNoHead
	// ErrUnsequenced reports events that have no place in the log yet: it passes
	// within a second while an authority runs.
	ErrUnsequenced = eventlog.ErrUnsequenced
)

// Begin makes an empty place a record: it signs the head of the empty log
// (RFC 6962 §2.1) and returns it. From then on the record says whose it is, and one
// that was emptied can be told from a new one. A place with a log is [ErrNotEmpty].
func (s *Store) Begin(ctx context.Context, key *translog.Key) (head []byte, err error) {
	return s.log.Begin(ctx, key)
}

// Withdraw takes back a head that Begin has returned, if nothing was recorded since.
func (s *Store) Withdraw(ctx context.Context, head []byte) error { return s.log.Withdraw(ctx, head) }

// Resume returns the newest signed head, as text and opened, after it has checked
// that the log goes on from known, a head that the caller kept (the zero value for
// none). Errors: [ErrNoHead]; [translog.ErrForeign] for the record of another
// authority; [ErrRolledBack].
func (s *Store) Resume(ctx context.Context, v translog.Verifier, known translog.Head) (text []byte, newest translog.Head, err error) {
	return s.log.Resume(ctx, v, known)
}

// Sequence gives committed events their places in the log, in the order of their
// ids, and signs the new head, which it returns; with nothing to do, or while
// another process is at it, that is the newest head there is, nil before the
// first. more says that events are left for another call.
//
// seen is the newest head that the caller knows of, zero for none. A database that
// has an older one, or another one of the same size, is [ErrRolledBack]: nothing
// else is written until the log is again what it was. Other changes of the log are
// [ErrLog] and stop only the signing.
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

// LogEntry returns an entry, by the rows of today, with its proof in the tree of
// the head. [record.ErrNotFound] means that the head has no such index, [ErrLog]
// that the rows are not those that were logged.
func (s *Store) LogEntry(ctx context.Context, head translog.Head, index int64) (translog.Inclusion, error) {
	return s.log.Entry(ctx, head, index)
}

// VerifyLog makes every entry again from the rows of today and compares: entries
// with their leaves, leaves with the signed head, and with each kept head the
// beginning of the log. It reads one snapshot, in pages, beside a running
// authority. An error means that it could not be done; what is wrong with the log
// is in the report.
func (s *Store) VerifyLog(ctx context.Context, check translog.Check) (translog.Report, error) {
	return s.log.Verify(ctx, check)
}

// Prune removes up to limit certificates (500 at most) that expired before the
// given moment, with their revocations and events, in one transaction, and
// returns how many. Call it until that is less than limit. A lineage goes only
// when all of it has expired: while one of it lives, the revocation of another is
// what keeps it from renewing. Refusals stay. See [ErrUnsequenced].
func (s *Store) Prune(ctx context.Context, caller string, before time.Time, limit int) (removed int, err error) {
	return s.log.Prune(ctx, caller, before, limit)
}
