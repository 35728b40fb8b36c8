package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/secret"
)

// StateDir is the path of the state directory of an authority, as package ca/setup
// makes it. Its methods are what an operator does without a running authority: each
// call reads the files of the directory anew, and an error names the file.
type StateDir string

// ActiveRoot reads the root that signs now; its fingerprint is what clients pin. No
// password is needed.
func (d StateDir) ActiveRoot() (*x509.Certificate, error) {
	roots, _, err := statedir.Dir{Path: string(d)}.ReadTrust()
	if err != nil {
		return nil, err
	}
	return roots[0], nil
}

// LogVerifier reads the public key of the log. No password is needed.
func (d StateDir) LogVerifier() (translog.Verifier, error) { return statedir.LogVerifier(string(d)) }

// Errors of [StateDir.AcceptLoss] that callers match.
var (
	ErrNothingLost = errors.New("nothing is lost: the record holds what the marker names")
	ErrOtherLoss   = errors.New("that is not the number of entries that the marker names")
)

// Loss says which entries of the log the record of a directory does not have.
type Loss struct {
	// Known is the head of the marker; zero if there is none.
	Known translog.Head
	// Reason is why the record is refused: a [RecordError], or that the directory has
	// no key of a log to compare with.
	Reason error
}

// FindLoss compares the record of the directory with its marker, as [Open] does. It
// returns nil if nothing is lost. Other errors than those of [Loss.Reason] say nothing
// about a loss: a database may be away for a moment.
func (d StateDir) FindLoss(ctx context.Context) (*Loss, error) {
	cfg, err := policy.Load(string(d))
	if err != nil {
		return nil, err
	}
	v, err := d.LogVerifier()
	if errors.Is(err, fs.ErrNotExist) { // made before there was a log
		return &Loss{Reason: err}, nil
	}
	if err != nil {
		return nil, err
	}
	in, err := statedir.OpenRecord(ctx, string(d), cfg.Database, v)
	if err == nil {
		return nil, in.Store.Close()
	}
	if refused, ok := errors.AsType[*RecordError](err); ok {
		return &Loss{Known: refused.Known, Reason: err}, nil
	}
	return nil, err
}

// AcceptOptions say which loss to accept, and how to open the key of the log.
type AcceptOptions struct {
	// Password decrypts the key. Empty reads PasswordFile, as in [Options].
	Password secret.String
	// PasswordFile is read if Password is empty. Default secrets/password.
	PasswordFile string
	// Entries must be the size of the log that the marker names (Loss.Known). It
	// makes sure that the operator has seen this loss and not an earlier one.
	Entries int64
}

// AcceptLoss lets an authority go on although entries of its log are lost: with
// the older record that is there, or with a new one where there is none. Certificates
// that were revoked in the lost entries are good again, and so are tokens that were
// spent. It is an event of the log, [kinds.Accepted], and it replaces the marker by the
// head that it returns. The record of another authority is never accepted.
//
// The marker is replaced last, so after a crash the loss has to be accepted again.
func (d StateDir) AcceptLoss(ctx context.Context, opt AcceptOptions) (head translog.Head, err error) {
	loss, err := d.FindLoss(ctx)
	switch {
	case err != nil:
		return head, err
	case loss == nil:
		return head, ErrNothingLost
	case errors.Is(loss.Reason, translog.ErrForeign):
		return head, loss.Reason
	case opt.Entries != loss.Known.Size:
		return head, fmt.Errorf("accepting a loss of %d entries: %w, %d", opt.Entries, ErrOtherLoss, loss.Known.Size)
	}
	cfg, err := policy.Load(string(d))
	if err != nil {
		return head, err
	}
	key, err := logKeyOf(statedir.Dir{Path: string(d), Password: opt.Password, PasswordFile: opt.PasswordFile}, loss)
	if err != nil {
		return head, err
	}
	rec, err := openOrCreate(ctx, statedir.Database(string(d), cfg.Database))
	if err != nil {
		return head, err
	}
	defer func() { err = errors.Join(err, rec.Close()) }()
	text, err := accept(ctx, rec, key, loss.Known)
	if err != nil {
		return head, err
	}
	if head, err = key.Verifier().Open(text); err != nil {
		return head, err
	}
	return head, statedir.WriteMarker(string(d), text)
}

// logKeyOf opens the key of the log. Only a directory from before there was a log gets a
// new key, encrypted or plain like the keys that it has. In a directory with a marker a
// new key would make each kept head foreign.
func logKeyOf(f statedir.Dir, loss *Loss) (*translog.Key, error) {
	key, err := f.OpenLogKey()
	if _, refused := errors.AsType[*RecordError](loss.Reason); refused || !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	_, intermediates, err := f.ReadTrust()
	if err != nil {
		return nil, err
	}
	if f.Plain, err = f.KeptPlain(intermediates[0]); err != nil {
		return nil, err
	}
	return f.MakeLogKey()
}

// openOrCreate opens the record, or makes one where the store says that there is none.
func openOrCreate(ctx context.Context, where string) (*store.Store, error) {
	s, err := store.Open(ctx, where)
	if errors.Is(err, store.ErrNoRecord) {
		return store.Create(ctx, where)
	}
	return s, err
}

// accept records the loss and returns a signed head that covers the event of it. A
// record without a head gets its first one.
func accept(ctx context.Context, rec *store.Store, key *translog.Key, known translog.Head) (text []byte, err error) {
	_, have, err := rec.Resume(ctx, key.Verifier(), translog.Head{})
	detail := fmt.Sprintf("going on from %s, without some of %s", have, known)
	if errors.Is(err, store.ErrNoHead) {
		detail = fmt.Sprintf("beginning anew, without all of %s", known)
		_, err = rec.Begin(ctx, key)
	}
	if err != nil {
		return nil, err
	}
	if err := rec.Tell(ctx, record.Event{At: time.Now(), Kind: kinds.Accepted, Caller: operator, Detail: detail}); err != nil {
		return nil, err
	}
	for more := true; more; {
		if text, more, err = rec.Sequence(ctx, key, translog.Head{}); err != nil {
			return nil, err
		}
	}
	return text, nil
}
