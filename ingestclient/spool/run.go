package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/internal/uuid"
)

// maxBalks claims may fail at one look before the others wait for the next.
const maxBalks = 8

// loop is one Run. One goroutine owns everything in it; uploads and scans run
// beside it and report through channels.
type loop struct {
	*Spool
	scanner scanner
	settled settled
	gate    gate
	lanes   lanes
	known   map[identity]bool // where sources stay: not to be claimed again

	ready    []found // complete, oldest first
	waiting  int     // complete or not, at the last scan
	scanning bool
	scanned  bool // at least once, with nothing incomplete left
	stopping bool
	low      error           // on disk space: how much is free, and how much there has to be
	trouble  error           // of the last scan, or of claims since
	balked   bool            // a claim failed since the last scan
	bad      map[string]bool // names whose claim failed: others go first
	nextScan time.Time
	uploads  context.Context //nolint:containedctx // it outlives Run's by DrainTimeout, and ends with it
	probes   context.Context //nolint:containedctx // it ends with run
	results  chan outcome
	answers  chan error // of probes
	scans    chan scanResult
	team     sync.WaitGroup
}

type scanResult struct {
	files []found
	err   error
}

// Run sends what appears in the directory until ctx ends, or with Once until
// nothing is left that can be sent. Then it claims nothing more, lets uploads
// under way finish within DrainTimeout, and gives the rest back. The error is
// nil after such an end; others are of the directory or the journal.
func (s *Spool) Run(ctx context.Context) error {
	known := map[identity]bool{}
	if s.layout.keep {
		var err error
		if known, err = s.layout.known(s.journal); err != nil {
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
		Spool: s, known: known, uploads: uploads, bad: map[string]bool{},
		scanner: scanner{dir: s.layout.dir, recursive: s.cfg.Recursive, watch: watch},
		settled: settled{after: s.cfg.Settle, seen: map[string]sighting{}}, lanes: lanes{workers: s.cfg.Workers},
		// What an element is worth shows with the first file that it stores.
		gate:    gate{jitter: s.cfg.jitter, asks: s.cfg.Prober != nil, closed: s.cfg.Prober != nil || s.cfg.Finder != nil && s.proven(ctx) == nil},
		results: make(chan outcome, s.cfg.Workers), answers: make(chan error, 1), scans: make(chan scanResult, 1),
	}
	for _, it := range s.found {
		l.lanes.push(it)
	}
	if watch != nil {
		watch.add(s.layout.dir) // before the first scan: what comes between the two is seen twice, not never
		l.team.Go(watch.run)
	}
	defer l.team.Wait()
	defer watch.close()
	defer s.publishLast()
	err = l.run(ctx)
	return errors.Join(err, l.drain(cancel))
}

// run is the life before the drain.
func (l *loop) run(ctx context.Context) error {
	probes, stop := context.WithCancel(ctx)
	defer stop()
	l.probes = probes
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		now := time.Now()
		l.look(ctx, now)
		l.claim()
		l.dispatch(now)
		l.publish(now)
		if err := l.journal.broken(); err != nil {
			return fmt.Errorf("writing the journal: %w", err)
		}
		if l.cfg.Once && l.over() {
			return nil
		}
		tick.Reset(l.pause(now))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case out := <-l.results:
			l.handle(out, time.Now())
		case err := <-l.answers:
			l.answered(err, time.Now())
		case r := <-l.scans:
			l.scanning = false
			l.take(r, time.Now())
		case e := <-l.scanner.watch.changes():
			l.changed(e, time.Now())
		}
	}
}

// look starts a scan if one is due.
func (l *loop) look(ctx context.Context, now time.Time) {
	if l.scanning || now.Before(l.nextScan) {
		return
	}
	l.scanning = true
	l.team.Go(func() {
		var files []found
		err := l.layout.inPlace()
		if err == nil {
			files, err = l.scanner.scan(ctx)
		}
		l.scans <- scanResult{files, err}
	})
}

func (l *loop) take(r scanResult, now time.Time) {
	l.nextScan = now.Add(l.cfg.Rescan)
	if r.err != nil {
		l.say(fmt.Errorf("scanning: %w", r.err))
		return
	}
	if !l.balked {
		l.say(nil)
	}
	l.balked = false
	files := slices.DeleteFunc(r.files, func(f found) bool { return l.known[f.id] })
	complete, again := l.settled.update(files, now)
	// What could not be claimed last time goes last, or it would hold up the rest.
	good := slices.DeleteFunc(slices.Clone(complete), func(f found) bool { return l.bad[f.name] })
	complete = append(good, slices.DeleteFunc(complete, func(f found) bool { return !l.bad[f.name] })...)
	l.ready, l.waiting, l.scanned = complete, len(files), again == 0
	if again > 0 && again < l.cfg.Rescan {
		l.nextScan = now.Add(again)
	}
}

// changed handles one event of the watcher.
func (l *loop) changed(e event, now time.Time) {
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
	f, ok := l.scanner.look(e.path, info.Mode().Type())
	if !ok || l.known[f.id] || slices.ContainsFunc(l.ready, func(r found) bool { return r.name == f.name }) {
		return
	}
	l.ready = append(l.ready, f)
	l.settled.seen[f.name] = sighting{id: f.id} // long ago: the next scan must not make it wait
	l.waiting++
}

// claim takes files as long as there is room behind an open gate. Behind a
// closed one two are enough, so that the probe is another file than the one that
// closed it: the others wait where they are, and whoever wrote them still can
// take them back.
func (l *loop) claim() {
	l.checkDisk()
	rest, failed := l.ready[:0], 0
	for i, f := range l.ready {
		if l.low != nil || failed >= maxBalks || !l.gate.open() && l.lanes.len()+l.lanes.busy > 1 {
			rest = append(rest, l.ready[i:]...)
			break
		}
		if !l.lanes.room(f.id.Size >= largeFrom) {
			rest = append(rest, f)
			continue
		}
		if !l.claimOne(f) {
			failed++
		}
	}
	l.ready = rest
}

// claimOne reports whether the next one is worth a try.
func (l *loop) claimOne(f found) bool {
	it := &item{id: uuid.New(), name: f.name, seen: f.id}
	l.waiting--
	delete(l.settled.seen, f.name)
	err := l.layout.take(it.id, it.name, it.seen)
	if err != nil {
		info, stayed := l.layout.state.Lstat(contentPath(it.id, it.name))
		if stayed != nil { // it is where it was, or gone
			if errors.Is(err, errMoved) || errors.Is(err, fs.ErrNotExist) {
				return true
			}
			l.bad[f.name], l.balked = true, true
			l.say(fmt.Errorf("claiming: %w", err))
			return false
		}
		l.seeAgain(it, info) // its name was taken meanwhile: it cannot go back
	}
	if l.layout.keep {
		l.known[it.seen] = true
	}
	delete(l.bad, f.name)
	l.lanes.push(it)
	return true
}

// checkDisk says once when there is too little room to go on, and when that is over.
func (l *loop) checkDisk() {
	var low error
	if l.cfg.MinFree >= 0 && len(l.ready) > 0 {
		if free, err := freeBytes(l.layout.state.Name()); err == nil && free < l.cfg.MinFree {
			low = fmt.Errorf("%d bytes are free, and %d are wanted", free, l.cfg.MinFree)
		}
	}
	switch {
	case low != nil && l.low == nil:
		l.cfg.Logger.Warn("files are not claimed", "path", l.cfg.Dir, "reason", reasonLowDisk, "err", low)
	case low == nil && l.low != nil:
		l.cfg.Logger.Info("files are claimed again", "path", l.cfg.Dir)
	}
	l.low = low
}

// say reports trouble of our own once, and when it is over.
func (l *loop) say(err error) {
	switch {
	case err != nil && l.trouble == nil:
		l.cfg.Logger.Error("files cannot be claimed", "path", l.cfg.Dir, "err", err)
	case err == nil && l.trouble != nil:
		l.cfg.Logger.Info("files are claimed again", "path", l.cfg.Dir)
	}
	l.trouble = err
}

// dispatch starts uploads while the gate and the lanes allow.
func (l *loop) dispatch(now time.Time) {
	for l.lanes.len() > 0 && l.lanes.busy < l.lanes.workers {
		as := l.gate.admit(now)
		switch as {
		case admitNothing:
			return
		case admitProbe:
			l.team.Go(func() { l.answers <- ask(l.probes, l.cfg.Prober) })
			return
		}
		it := l.lanes.pop()
		if it == nil {
			l.gate.release(as)
			return
		}
		l.team.Go(func() {
			out := l.deliver(l.uploads, it)
			out.as = as
			l.results <- out
		})
	}
}

// answered takes the answer to a probe.
func (l *loop) answered(err error, now time.Time) {
	if err == nil {
		l.gate.answered(now)
		return
	}
	v := judge(l.probes, err)
	if v == verdictStopped {
		l.gate.release(admitProbe)
		return
	}
	if !v.pauses() { // a question proves nothing about a file
		v = verdictElement
	}
	l.pauseFor(v, err, admitProbe, now)
}

// pause is how long nothing but reports can change anything.
func (l *loop) pause(now time.Time) time.Duration {
	next := now.Add(publishInterval)
	if !l.scanning && l.nextScan.Before(next) {
		next = l.nextScan
	}
	if !l.gate.open() && !l.gate.busy && l.lanes.len() > 0 && l.gate.until.Before(next) {
		next = l.gate.until
	}
	return max(time.Millisecond, next.Sub(now))
}

// over ends a run that only empties the directory.
func (l *loop) over() bool {
	if l.lanes.busy > 0 {
		return false
	}
	if l.gate.failures >= giveUpProbes || l.gate.risked >= maxRisked || l.gate.why == verdictCredentials || l.low != nil {
		return true
	}
	if l.trouble != nil && l.lanes.len() == 0 {
		return true
	}
	return l.scanned && !l.scanning && len(l.ready) == 0 && l.lanes.len() == 0
}

// handle takes a worker's report.
func (l *loop) handle(out outcome, now time.Time) {
	it := out.item
	l.lanes.end(it)
	switch {
	case out.asked:
		if l.gate.success() {
			l.cfg.Logger.Info("uploads go on", "path", l.cfg.Dir)
			l.cfg.Observer(Event{Kind: "resumed"})
		}
	case out.verdict.pauses(), out.verdict == verdictUnknown:
		l.pauseFor(out.verdict, out.err, out.as, now)
	default:
		l.gate.release(out.as)
	}
	switch {
	case out.verdict == verdictRefused, out.verdict == verdictUnknown:
		l.cfg.Logger.Error("file put aside", "path", it.name, "state", string(it.aside.State), "id", it.id, "err", out.err)
	case out.verdict == verdictChanged, out.verdict == verdictStopped:
		l.giveBack(it)
	case out.verdict == verdictGone:
		l.cfg.Logger.Error("claimed file is gone", "path", it.name, "id", it.id)
		l.forget(it)
	case out.verdict != verdictStored:
		l.again(it)
	}
}

func (l *loop) pauseFor(why verdict, err error, as admission, now time.Time) {
	if l.gate.failure(why, err, as, now) {
		word := pauseReason(why, err)
		l.cfg.Logger.Warn("uploads pause", "path", l.cfg.Dir, "reason", word, "err", err)
		l.cfg.Observer(Event{Kind: "paused", Reason: word, Err: err})
	}
}

// again queues a file behind the others. One that fails again and again while
// others are stored is at fault itself, whatever the element calls it.
func (l *loop) again(it *item) {
	done := l.stored.Load()
	if it.tries <= 1 {
		it.others = done
	}
	if it.tries >= crowdedTries && done-it.others >= crowdedStored && it.stored == nil && it.aside == nil {
		to := asideFailed
		if it.open {
			to = asideAmbiguous
		}
		it.aside = l.describe(it, errCrowded, to)
		it.aside.FileID = it.id
	}
	l.lanes.push(it)
}

var errCrowded = errors.New("the element kept failing on this file while it stored others")

// giveBack ends a claim that was not sent. What may be stored stays claimed,
// and the next start goes on with it.
func (l *loop) giveBack(it *item) {
	if it.open || it.stored != nil || it.aside != nil {
		if !l.stopping {
			l.refresh(it)
		}
		return
	}
	l.scanned = false // it has to be found again
	if err := l.layout.giveBack(it.id, it.name); err != nil {
		l.cfg.Logger.Warn("file not given back; it stays claimed", "path", it.name, "id", it.id, "err", err)
		if !l.stopping {
			l.refresh(it)
		}
		return
	}
	l.forget(it)
}

func (l *loop) refresh(it *item) {
	if info, err := l.layout.state.Lstat(contentPath(it.id, it.name)); err == nil {
		l.seeAgain(it, info)
	}
	l.again(it)
}

// seeAgain takes a claim as it is now. What is no file can only be put aside.
func (s *Spool) seeAgain(it *item, info fs.FileInfo) {
	it.seen = identify(info)
	if info.Mode().IsRegular() {
		return
	}
	to := asideFailed
	if it.open {
		to = asideAmbiguous
	}
	it.aside = s.describe(it, errIrregular, to)
}

var errIrregular = errors.New("it is not a regular file, and cannot go back to where it was")

func (l *loop) forget(it *item) {
	if !it.open { // else it is not to be sent under another id, if its source is there still
		delete(l.known, it.seen)
	}
	l.forgetRecord(it)
	if err := l.layout.drop(it.id); err != nil {
		l.cfg.Logger.Warn("claim not removed", "id", it.id, "err", err)
	}
}

// drain ends uploads under way, by patience first, and gives back the rest.
func (l *loop) drain(cancel context.CancelFunc) error {
	l.stopping = true
	timer := time.NewTimer(l.cfg.DrainTimeout)
	defer timer.Stop()
	for l.lanes.busy > 0 || l.scanning {
		select {
		case <-timer.C:
			cancel()
		case out := <-l.results:
			l.handle(out, time.Now())
		case <-l.scans:
			l.scanning = false
		}
	}
	for _, it := range l.lanes.rest() {
		l.giveBack(it)
	}
	return l.journal.broken()
}
