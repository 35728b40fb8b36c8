// Package eventlog keeps the log of a record: an append-only list of its events, with a
// Merkle tree over them whose head is signed (docs/design/0010-the-log.md). It writes
// events, gives them their places in the tree, makes proofs, deletes old rows and verifies
// the log. Package translog has the arithmetic.
//
//	id, err := eventlog.Append(ctx, tx, event, eventlog.CertificateDigest(&c))
//	l := eventlog.New(db)
//	head, more, err := l.Sequence(ctx, key, seen)
//	report, err := l.Verify(ctx, translog.Check{Verifier: v, Kept: heads})
//
// Every event is written with its leaf, a hash of the event and of the row it tells
// of. [Log.Sequence] gives the leaves of committed events their places and signs the
// tree.
//
// A crash before the commit of an event leaves nothing of it. A crash after the commit
// leaves event and leaf in log_pending, where the next call of Sequence finds the leaf. It
// moves leaves from there into the tree in the transaction that stores the new head.
//
// [Log.Sequence] returns a head after the transaction that stored it has ended. A caller
// must not hand out a head from any other place: a crash could take it back.
//
// Invariants:
//
//   - An event and its leaf are in the transaction of the row that they tell of
//     (TestAppend).
//   - The tree that a head signs contains the trees of all heads before (TestLogGrows,
//     TestResume).
//   - Nothing is signed that does not continue the head that was signed last
//     (TestSequencerSignsNoForgery, TestRolledBack).
//   - Of several processes on one record one sequences at a time (TestOneSequencer).
//   - Verify names each change of a row that was made without the key of the log
//     (TestLogFindings).
//   - Pruning takes rows away and leaves their leaves: a kept head stays verifiable
//     (TestPrunedStaysVerifiable).
//   - The digests of rows never change their form, so an old log still verifies
//     (TestFormsStay).
package eventlog

import (
	"errors"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
)

// ErrLog reports that what the database holds as the log does not continue the
// head that was signed last. Signing on would make the change look genuine.
var ErrLog = errors.New("the log does not continue its last signed head")

// ErrRolledBack is an [ErrLog]: the record is an older state of itself, or another
// record took its place. Events since then are missing, and among them revocations.
var ErrRolledBack error = rolledBack{}

type rolledBack struct{}

func (rolledBack) Error() string { return "the record was rolled back" }
func (rolledBack) Unwrap() error { return ErrLog }

// ErrNoHead reports a record whose log has no signed head. [Log.Begin] makes the
// first one, so this is a record that was emptied, or one from before there was a log.
var ErrNoHead = errors.New("its log has no signed head")

// ErrUnsequenced reports events that have no place in the log yet. A running authority gives
// them their places within a second, so the caller can try again then.
var ErrUnsequenced = errors.New("events wait for their place in the log")

// ErrNotEmpty reports that there is a record where a new one should begin.
var ErrNotEmpty = errors.New("the target is not empty")

// Log is the log of an open record. It is safe for concurrent use, and has no state
// beside the database.
type Log struct{ db *sqldb.DB }

// New returns the log of the record in a database.
func New(db *sqldb.DB) *Log { return &Log{db} }
