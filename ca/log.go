package ca

import (
	"context"
	"encoding/base64"
	"errors"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/eventlog"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
)

// The log of the authority: store keeps and extends it, translog has its
// arithmetic, and here are its key, its pace and who is told of its head.
// docs/design/0010-the-log.md has the reasons.

const (
	// sequenceEvery is how long an event waits for its place in the log at most,
	// and with it how long it could vanish without a trace in a signed head.
	sequenceEvery = time.Second
)

// signedHead is the newest signed head that this process knows, in the forms that it
// is handed out in.
type signedHead struct {
	translog.Head
	text   []byte // a signed note
	header string // base64 of text, for one line of HTTP
}

// LogVerifier reads the public key of the log in a state directory. No password
// is needed.
func LogVerifier(dir string) (translog.Verifier, error) { return statedir.LogVerifier(dir) }

// setHead makes a head the one that is handed out. That of the empty log says
// nothing to those who keep heads.
func (a *Authority) setHead(text []byte) error {
	h, err := a.logKey.Verifier().Open(text)
	if err != nil || h.Size == 0 {
		return err
	}
	if old := a.head.Load(); old == nil || h.Size > old.Size {
		a.head.Store(&signedHead{h, text, base64.StdEncoding.EncodeToString(text)})
	}
	return nil
}

// KeepLog gives committed events their places in the log and signs its head, each
// second, until ctx ends; then it returns nil. Of several processes on one record
// one does the work at a time, and the others learn the head. It keeps the marker,
// too. A failure is logged and tried again: certificates are issued meanwhile, and
// their events wait; but not into a record that was rolled back.
func (a *Authority) KeepLog(ctx context.Context) error {
	var failing string // logged once, not each second
	for {
		err := a.sequence(ctx)
		a.sequencingFailed.Store(err != nil && ctx.Err() == nil)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the end of ctx is the normal end
		case err == nil && failing != "":
			a.logger.InfoContext(ctx, "log extended again")
			failing = ""
		case err != nil && err.Error() != failing:
			if errors.Is(err, store.ErrRolledBack) {
				a.mark(ctx, true) // while it is known what is missing
			}
			a.logger.ErrorContext(ctx, "log not extended, will retry", "err", err)
			failing = err.Error()
		}
		if err == nil {
			a.mark(ctx, false)
		}
		timer := time.NewTimer(sequenceEvery)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// logSize and logFailing are for the metrics.
func (a *Authority) logSize() int64 {
	if h := a.head.Load(); h != nil {
		return h.Size
	}
	return 0
}

func (a *Authority) logFailing() float64 {
	if a.sequencingFailed.Load() {
		return 1
	}
	return 0
}

// sequence extends the log until nothing waits.
func (a *Authority) sequence(ctx context.Context) error {
	for {
		var seen translog.Head
		if h := a.head.Load(); h != nil {
			seen = h.Head
		}
		text, more, err := a.record.Sequence(ctx, a.logKey, seen)
		if err != nil {
			return err
		}
		if text != nil {
			if err := a.setHead(text); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
	}
}

// LogOptions say what [Record.VerifyLog] compares with.
type LogOptions struct {
	// Heads are signed heads that were kept elsewhere, as texts.
	Heads [][]byte
	// Progress, if set, is called now and then.
	Progress func(done, total int64)
}

// LogHead returns the newest signed head, nil if there is none yet.
func (r *Record) LogHead(ctx context.Context) ([]byte, error) { return r.store.LogHead(ctx) }

// VerifyLog makes the log again from the record and compares it with its signed
// head and with those given, see [store.Store.VerifyLog]. A given head that
// another key signed is a finding; one that is none is an error.
func (r *Record) VerifyLog(ctx context.Context, opt LogOptions) (translog.Report, error) {
	v, err := LogVerifier(r.dir)
	if err != nil {
		return translog.Report{}, err
	}
	return r.verifyLog(ctx, v, opt, nil)
}

// verifyLog compares with known heads of this log, too.
func (r *Record) verifyLog(ctx context.Context, v translog.Verifier, opt LogOptions, known []translog.Head) (translog.Report, error) {
	check := translog.Check{Verifier: v, Kept: known, Progress: opt.Progress}
	var foreign []translog.Finding
	for _, text := range opt.Heads {
		h, err := v.Open(text)
		switch {
		case errors.Is(err, translog.ErrForeign):
			foreign = append(foreign, translog.Finding{Fault: eventlog.FaultUnsigned, Index: -1,
				Text: "a kept head was signed by another key: it is of another log, or the key was replaced"})
		case err != nil:
			return translog.Report{}, err
		default:
			check.Kept = append(check.Kept, h)
		}
	}
	report, err := r.store.VerifyLog(ctx, check)
	report.Findings = append(foreign, report.Findings...)
	return report, err
}
