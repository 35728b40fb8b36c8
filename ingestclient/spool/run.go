package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/ingestclient/spool/internal/fileat"
)

// maxBalks is how many claims may fail in a row before the others wait for the next round.
const maxBalks = 8

// loop is one Run. One goroutine owns everything in it; uploads and scans run
// beside it and report through channels.
type loop struct {
	*Spool
	scanner   scanner
	stability stability
	breaker   breaker
	queue     queue
	excluded  map[fileat.ID]bool // where sources stay: files that must not be claimed again

	ready       []foundFile // complete, oldest first
	waiting     int         // complete or not, at the last scan
	scanning    bool
	scanned     bool // the last scan has found no incomplete file
	stopping    bool
	lowDisk     error           // says how much disk space is free, if it is too little
	trouble     error           // of the last scan, or of claims after it
	claimFailed bool            // a claim failed since the last scan
	failedNames map[string]bool // names whose claim failed: others go first
	nextScan    time.Time
	uploads     context.Context // it outlives Run's by DrainTimeout, and ends with it
	probes      context.Context // it ends with run
	results     chan workResult
	answers     chan error // of probes
	scans       chan scanResult
	team        sync.WaitGroup
}

type scanResult struct {
	files []foundFile
	err   error
}

// Run sends the files that appear in the directory until ctx ends, or with Once until no file
// is left that can be sent. Then it claims no more files, lets uploads under way finish
// within DrainTimeout, and returns the other claims to the directory. The error is nil
// after such an end; otherwise it is one of the directory or the journal.
func (s *Spool) Run(ctx context.Context) error {
	known := map[fileat.ID]bool{}
	if s.layout.keep {
		var err error
		if known, err = s.layout.excludedFiles(s.journal); err != nil {
			return fmt.Errorf("running the spool: %w", err)
		}
	}
	var watch *watcher
	var err error
	if !s.cfg.bubble {
		watch, err = newWatcher()
	}
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		s.cfg.Logger.Warn("changes are found by scanning only", "path", s.cfg.Dir, "err", err)
	}
	uploads, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	l := &loop{
		Spool: s, excluded: known, uploads: uploads, failedNames: map[string]bool{},
		scanner:   scanner{dir: s.layout.dir, recursive: s.cfg.Recursive, watch: watch},
		stability: stability{after: s.cfg.Settle, seen: map[string]firstSeen{}}, queue: queue{workers: s.cfg.Workers},
		// Without proof that files can be stored and looked up, one file is tried first.
		breaker: breaker{jitter: s.cfg.jitter, asks: s.cfg.Prober != nil, closed: s.cfg.Prober != nil || s.cfg.Finder != nil && s.provenElements(ctx) == nil},
		results: make(chan workResult, s.cfg.Workers), answers: make(chan error, 1), scans: make(chan scanResult, 1),
	}
	for _, it := range s.recovered {
		l.queue.push(it)
	}
	if watch != nil {
		watch.add(s.layout.dir) // before the first scan, so that no file between the two is missed
		l.team.Go(watch.run)
	}
	defer l.team.Wait()
	defer watch.Close()
	defer s.publishLast()
	err = l.run(ctx)
	return errors.Join(err, l.drain(cancel))
}

// run handles scans, uploads and probes until ctx ends.
func (l *loop) run(ctx context.Context) error {
	probes, stop := context.WithCancel(ctx)
	defer stop()
	l.probes = probes
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		now := time.Now()
		l.scanIfDue(ctx, now)
		l.claim()
		l.dispatch(now)
		l.publish(now)
		if err := l.journal.Err(); err != nil {
			return fmt.Errorf("writing the journal: %w", err)
		}
		if l.cfg.Once && l.isFinished() {
			return nil
		}
		tick.Reset(l.nextWake(now))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case out := <-l.results:
			l.handle(out, time.Now())
		case err := <-l.answers:
			l.handleProbe(err, time.Now())
		case r := <-l.scans:
			l.scanning = false
			l.addScan(r, time.Now())
		case e := <-l.scanner.watch.changes():
			l.handleChange(e, time.Now())
		}
	}
}

// scanIfDue starts a scan if one is due.
func (l *loop) scanIfDue(ctx context.Context, now time.Time) {
	if l.scanning || now.Before(l.nextScan) {
		return
	}
	l.scanning = true
	l.team.Go(func() {
		var files []foundFile
		err := l.layout.checkUnmoved()
		if err == nil {
			files, err = l.scanner.scan(ctx)
		}
		l.scans <- scanResult{files, err}
	})
}

// addScan takes the result of a scan.
func (l *loop) addScan(r scanResult, now time.Time) {
	l.nextScan = now.Add(l.cfg.Rescan)
	if r.err != nil {
		l.logTrouble(fmt.Errorf("scanning: %w", r.err))
		return
	}
	if !l.claimFailed {
		l.logTrouble(nil)
	}
	l.claimFailed = false
	files := slices.DeleteFunc(r.files, func(f foundFile) bool { return l.excluded[f.id] })
	complete, again := l.stability.update(files, now)
	// Files that could not be claimed last time come last, so that they do not hold up the others.
	good := slices.DeleteFunc(slices.Clone(complete), func(f foundFile) bool { return l.failedNames[f.name] })
	complete = append(good, slices.DeleteFunc(complete, func(f foundFile) bool { return !l.failedNames[f.name] })...)
	l.ready, l.waiting, l.scanned = complete, len(files), again == 0
	if again > 0 && again < l.cfg.Rescan {
		l.nextScan = now.Add(again)
	}
}

// handleChange handles one event of the watcher.
func (l *loop) handleChange(e event, now time.Time) {
	if e.path == "" {
		l.nextScan = now
		return
	}
	if ignored(filepath.Base(e.path)) || !e.moved && !l.cfg.OnClose {
		return
	}
	info, err := os.Lstat(e.path)
	if err != nil {
		return
	}
	f, ok := l.scanner.inspect(e.path, info.Mode().Type())
	if !ok || l.excluded[f.id] || slices.ContainsFunc(l.ready, func(r foundFile) bool { return r.name == f.name }) {
		return
	}
	l.ready = append(l.ready, f)
	l.stability.seen[f.name] = firstSeen{id: f.id} // since zero, so that the next scan does not make it wait
	l.waiting++
}

// logTrouble logs a failure of the directory once, and its end.
func (l *loop) logTrouble(err error) {
	switch {
	case err != nil && l.trouble == nil:
		l.cfg.Logger.Error("files cannot be claimed", "path", l.cfg.Dir, "err", err)
	case err == nil && l.trouble != nil:
		l.cfg.Logger.Info("files are claimed again", "path", l.cfg.Dir)
	}
	l.trouble = err
}

// dispatch starts uploads, a probe or a trial, as the breaker and the queue allow.
func (l *loop) dispatch(now time.Time) {
	for l.queue.size() > 0 && l.queue.busy < l.queue.workers {
		as := l.breaker.allow(now)
		switch as {
		case admitNothing:
			return
		case admitProbe:
			l.team.Go(func() { l.answers <- askElements(l.probes, l.cfg.Prober) })
			return
		}
		it := l.queue.pop()
		if it == nil {
			l.breaker.release(as)
			return
		}
		l.team.Go(func() {
			out := l.deliver(l.uploads, it)
			out.as = as
			l.results <- out
		})
	}
}

// handleProbe takes the answer to a probe.
func (l *loop) handleProbe(err error, now time.Time) {
	if err == nil {
		l.breaker.probed(now)
		return
	}
	v := classify(l.probes, err)
	if v == outcomeStopped {
		l.breaker.release(admitProbe)
		return
	}
	if !v.pauses() { // a probe proves nothing about a file
		v = outcomeElement
	}
	l.pauseFor(v, err, admitProbe, now)
}

// nextWake returns how long run can wait for reports.
func (l *loop) nextWake(now time.Time) time.Duration {
	next := now.Add(publishInterval)
	if !l.scanning && l.nextScan.Before(next) {
		next = l.nextScan
	}
	if !l.breaker.open() && !l.breaker.busy && l.queue.size() > 0 && l.breaker.until.Before(next) {
		next = l.breaker.until
	}
	return max(time.Millisecond, next.Sub(now))
}

// isFinished reports whether a run with Once has nothing left to do.
func (l *loop) isFinished() bool {
	if l.queue.busy > 0 {
		return false
	}
	if l.breaker.failures >= giveUpProbes || l.breaker.risked >= maxRisked || l.breaker.why == outcomeCredentials || l.lowDisk != nil {
		return true
	}
	if l.trouble != nil && l.queue.size() == 0 {
		return true
	}
	return l.scanned && !l.scanning && len(l.ready) == 0 && l.queue.size() == 0
}

// handle takes the result of a worker.
func (l *loop) handle(out workResult, now time.Time) {
	it := out.item
	l.queue.end(it)
	switch {
	case out.asked:
		if l.breaker.success() {
			l.cfg.Logger.Info("uploads resumed", "path", l.cfg.Dir)
			l.cfg.Observer(Event{Kind: "resumed"})
		}
	case out.outcome.pauses(), out.outcome == outcomeUnknown:
		l.pauseFor(out.outcome, out.err, out.as, now)
	default:
		l.breaker.release(out.as)
	}
	switch {
	case out.outcome == outcomeRefused, out.outcome == outcomeUnknown:
		l.cfg.Logger.Error("file put aside", "path", it.name, "state", string(it.quarantined.State), "id", it.id, "err", out.err)
	case out.outcome == outcomeChanged, out.outcome == outcomeStopped:
		l.unclaimItem(it)
	case out.outcome == outcomeGone:
		l.cfg.Logger.Error("claimed file is gone", "path", it.name, "id", it.id)
		l.forget(it)
	case out.outcome != outcomeStored:
		l.requeue(it)
	}
}

// pauseFor tells the breaker of a failure, and reports the begin of a pause.
func (l *loop) pauseFor(why outcome, err error, as admission, now time.Time) {
	if l.breaker.failure(why, err, as, now) {
		word := pauseReason(why, err)
		l.cfg.Logger.Warn("uploads pause", "path", l.cfg.Dir, "reason", word, "err", err)
		l.cfg.Observer(Event{Kind: "paused", Reason: word, Err: err})
	}
}

// requeue queues a file behind the others. A file that fails crowdedTries times while others
// are stored is quarantined, whatever the reason of its failures.
func (l *loop) requeue(it *item) {
	done := l.stored.Load()
	if it.tries <= 1 {
		it.others = done
	}
	if it.tries >= crowdedTries && done-it.others >= crowdedStored && it.stored == nil && it.quarantined == nil {
		to := quarantineFailed
		if it.open {
			to = quarantineAmbiguous
		}
		it.quarantined = l.newReason(it, errCrowded, to)
		it.quarantined.FileID = it.id
	}
	l.queue.push(it)
}

var errCrowded = errors.New("the element kept failing on this file while it stored others")

// drain waits for uploads under way, cancels them after DrainTimeout, and returns the
// files that were not sent.
func (l *loop) drain(cancel context.CancelFunc) error {
	l.stopping = true
	timer := time.NewTimer(l.cfg.DrainTimeout)
	defer timer.Stop()
	for l.queue.busy > 0 || l.scanning {
		select {
		case <-timer.C:
			cancel()
		case out := <-l.results:
			l.handle(out, time.Now())
		case <-l.scans:
			l.scanning = false
		}
	}
	for _, it := range l.queue.takeAll() {
		l.unclaimItem(it)
	}
	return l.journal.Err()
}
