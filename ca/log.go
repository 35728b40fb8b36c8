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
	"github.com/artstore/artstore-pki/ca/internal/tally"
	"github.com/artstore/artstore-pki/ca/internal/truststore"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
)

// This file decides when the log is extended and to whom its head is sent. Package
// store keeps the entries, and package translog has the arithmetic of the tree.
// docs/design/0010-the-log.md has the reasons.

// sequenceEvery is how long a committed event waits for its place in the log at most.
// During this time a change of the database can remove the event, and no signed head
// shows it.
const sequenceEvery = time.Second

// signedHead is a signed head of the log in the forms in which it is sent.
type signedHead struct {
	translog.Head
	text   []byte // c2sp.org/signed-note
	header string // text in base64, since a header of HTTP has one line
}

// setHead makes a signed head the current one, if it is larger than the one before. The
// head of the empty log is not sent: every log begins with it.
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
// second, until ctx ends; then it returns nil. Of several processes on one record one
// does the work at a time, and the others read the head. It writes the marker as well.
//
// A failure is logged and tried again. Meanwhile certificates are issued, and their
// events wait. Into a record that was rolled back nothing is issued.
func (a *Authority) KeepLog(ctx context.Context) error {
	var failing string // the last error, so that it is logged once and not each second
	for {
		err := errors.Join(a.sequence(ctx), a.followTrust(ctx))
		a.sequencingFailed.Store(err != nil && ctx.Err() == nil)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the end of ctx is the normal end
		case err == nil && failing != "":
			a.logger.InfoContext(ctx, "log extended again")
			failing = ""
		case err != nil && err.Error() != failing:
			if errors.Is(err, store.ErrRolledBack) {
				a.mark(ctx, true) // this process knows the newer head: the next start must refuse the record as well
			}
			a.logger.ErrorContext(ctx, "log not extended, will retry", "err", err)
			failing = err.Error()
		}
		if err == nil {
			a.mark(ctx, false)
		}
		wait := sequenceEvery
		if a.foldTallies(ctx) {
			wait = foldPause
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// foldPause is the time between two steps in which many entries of the log are counted in, as after
// the update of a program from before they were. Other writers come in between.
const foldPause = 10 * time.Millisecond

// foldTallies counts the newest entries of the log in for the dashboard, and reports whether some
// are left. A failure is logged once: neither issuing nor the log depends on the counts.
func (a *Authority) foldTallies(ctx context.Context) (more bool) {
	more, err := a.tallies.Fold(ctx, time.Now())
	if failed := err != nil && ctx.Err() == nil; failed != a.foldingFailed.Swap(failed) && failed {
		a.logger.WarnContext(ctx, "events not counted for the dashboard, will retry", "err", err)
	}
	return more
}

// logSize returns how many entries the newest signed head covers.
func (a *Authority) logSize() int64 {
	if h := a.head.Load(); h != nil {
		return h.Size
	}
	return 0
}

// logFailing returns 1 if the log could not be extended the last time, otherwise 0.
func (a *Authority) logFailing() float64 {
	if a.sequencingFailed.Load() {
		return 1
	}
	return 0
}

// sequence extends the log until no committed event waits.
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
	// Heads are signed heads that were kept elsewhere, as c2sp.org/tlog-checkpoint.
	Heads [][]byte
	// Progress, if set, is called now and then with the number of compared entries.
	Progress func(done, total int64)
}

// LogHead returns the newest signed head, nil if there is none yet.
func (r *Record) LogHead(ctx context.Context) ([]byte, error) { return r.store.LogHead(ctx) }

// VerifyLog makes the log again from the record and compares it with its signed head
// and with opt.Heads, see [store.Store.VerifyLog]. A head that another key has signed is
// a finding; a text that is not a head is an error.
func (r *Record) VerifyLog(ctx context.Context, opt LogOptions) (translog.Report, error) {
	v, err := r.dir.LogVerifier()
	if err != nil {
		return translog.Report{}, err
	}
	return r.verifyLog(ctx, v, opt, nil)
}

// verifyLog is VerifyLog with further heads, whose signatures were checked.
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

// The marker, certs/log.head, is the newest head that the state directory knows of. A
// record that does not contain it is refused at the next start:
// docs/design/0014-the-record-is-never-replaced.md has the cases. It is written at the
// start, at the end, and in between at a bounded rate, because each write flushes the
// disk twice. A record that is rolled back to a moment after the last marker is not
// noticed here; the heads that agents keep show it.

// markEvery is the shortest time between two markers.
const markEvery = 2 * time.Second

// marker is what this process knows of the marker on the disk.
type marker struct {
	mu     sync.Mutex // guards the fields, and the file within this process
	size   int64      // entries that the marker names
	at     time.Time  // of the last attempt to write it
	failed bool       // the last attempt has failed, and that was logged
	every  time.Duration
}

// mark writes the newest head to the marker, if it is larger than the one there. Unless
// now is set, it does nothing within marker.every of the last time. The head was read
// after its commit, so the marker is never ahead of the record. A failure is logged and
// not returned: an older marker is still correct.
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

// lastHead bounds how long Close waits for the database, which may be away.
const lastHead = 2 * time.Second

// markLast signs a head over the events since the last one and writes it to the marker.
// An older record that is put in place after a clean stop is then refused, even if one
// event is missing. If the head cannot be signed, the marker names the one before, and
// the next start signs this one.
func (a *Authority) markLast() {
	if a.head.Load() == nil {
		return // Open has failed before it read a head
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
	a.record, a.acmeRecord, a.trustRecord, a.tallies = in.Store, acmestore.New(in.DB), truststore.New(in.DB), tally.New(in.DB)
	if err := a.setHead(in.Text); err != nil {
		return err
	}
	if in.Marker == (translog.Head{}) {
		// Without a marker the next start would accept any record, so this must succeed.
		if err := statedir.WriteMarker(a.files.Path, in.Text); err != nil {
			return err
		}
		in.Marker = in.Head
	}
	a.marker.size, a.marker.every = in.Marker.Size, markEvery
	a.mark(ctx, true)
	return nil
}
