package ca

import (
	"context"
	"encoding/base64"
	"errors"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/acmestore"
	"github.com/artstore/artstore-pki/ca/internal/eventlog"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/policy"
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
	v, err := r.dir.LogVerifier()
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

// The marker, certs/log.head, is what this directory knows of its record. A record
// that does not hold it is refused at the next start: docs/design/0014 has the
// cases. Here is when it is written: at the start, at the end, and in between at a
// bounded rate, because each time costs two flushes of the disk. What is recorded
// after the last time can be rolled back without this directory knowing it; the
// heads that agents keep tell.

// markEvery is the shortest time between two markers.
const markEvery = 2 * time.Second

// marker is how far the marker on the disk is.
type marker struct {
	mu     sync.Mutex // guards what follows, and the file within this process
	size   int64
	at     time.Time
	failed bool // logged once
	every  time.Duration
}

// mark writes the newest head to the marker, if it is newer and the last one is
// long enough ago, or if it must be now. The head was read from the record after
// its commit, so the marker is never ahead of the record. A failure is logged:
// an older marker is a good one.
func (a *Authority) mark(ctx context.Context, now bool) {
	h, m := a.head.Load(), &a.marker
	if h == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if h.Size <= m.size || !now && time.Since(m.at) < m.every {
		return
	}
	m.at = time.Now()
	err := statedir.WriteMarker(a.files.Path, h.text)
	if err == nil {
		m.size = h.Size
	} else if !m.failed {
		a.logger.WarnContext(ctx, "marker not written, will retry", "path", a.files.File(statedir.MarkerFile), "err", err)
	}
	m.failed = err != nil
}

// lastHead bounds how long the end waits for a database that may be away.
const lastHead = 2 * time.Second

// markLast signs a head over what was recorded since the last one, so that a record
// put back after a clean stop is refused, whatever it lacks. If the head cannot be
// signed, the marker names the one before, and the next start signs this one.
func (a *Authority) markLast() {
	if a.head.Load() == nil {
		return // it never opened
	}
	ctx, cancel := context.WithTimeout(a.life, lastHead)
	defer cancel()
	if err := a.sequence(ctx); err != nil {
		a.logger.WarnContext(ctx, "last head not signed, the next start does it", "err", err)
	}
	a.mark(ctx, true)
}

// openRecord opens the record and brings the marker up to it. A directory that
// was made before there were markers gets its first one here.
func (a *Authority) openRecord(ctx context.Context, cfg policy.Config) (err error) {
	if a.logKey, err = a.files.OpenLogKey(); err != nil {
		return err
	}
	in, err := statedir.OpenRecord(ctx, a.files.Path, cfg.Database, a.logKey.Verifier())
	if err != nil {
		return err
	}
	a.record, a.acmeRecord = in.Store, acmestore.New(in.DB)
	if err := a.setHead(in.Text); err != nil {
		return err
	}
	if in.Marker == (translog.Head{}) {
		// Without any marker nothing would be noticed the next time, so this must succeed.
		if err := statedir.WriteMarker(a.files.Path, in.Text); err != nil {
			return err
		}
		in.Marker = in.Head
	}
	a.marker.size, a.marker.every = in.Marker.Size, markEvery
	a.mark(ctx, true)
	return nil
}
