// Package files is a [rotation.Source] that reads certificate, key and trust bundle from
// files, and follows their changes. Any program may replace the files, in any way:
//
//	id, err := rotation.Open(ctx, rotation.Config{Source: files.Source(files.Set{Dir: "/etc/tls"})})
//
// A reader of files may see them halfway through a change. So all files are read through
// one resolution of the symbolic links, parsed strictly, and read again after a short
// time before they are proposed. [Source] has the times.
//
// Invariants:
//
//   - A state in the middle of a change is never proposed (TestTornStates, TestTornWrites);
//     a set that is swapped by a link is never mixed with another one (TestTornSwaps).
//   - A set that changes in place and takes trust away waits for 1 s; a swap does not
//     wait (TestFilesLoss).
//   - Changes are found without notifications too, by polling (TestFilesNotifierSeam).
//   - A bad certificate of Set.Others does not keep the rest from being proposed
//     (TestABadOtherCertificate).
//
// These tests are in package rotation, because they need an identity that follows the
// files.
package files

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/internal/backoff"
	"github.com/artstore/artstore-pki/internal/errtext"
	"github.com/artstore/artstore-pki/internal/filewatch"
	"github.com/artstore/artstore-pki/internal/wallclock"
	"github.com/artstore/artstore-pki/rotation"
)

const (
	defaultPoll = 30 * time.Second
	minRetry    = 10 * time.Millisecond
	maxRetry    = time.Second
	othersStep  = 100 * time.Millisecond // between attempts while one of the other certificates cannot be read
	// patience is how long a set may be unreadable or torn before that is reported,
	// because a writer that does not rename takes some time. At the start it is also how
	// long a missing file may take to appear.
	patience = 2 * time.Second

	// debounce is the pause after the first notification of a burst: a writer changes
	// several files one after the other. In a directory where other programs write all
	// the time it grows to maxDebounce.
	debounce    = 5 * time.Millisecond
	maxDebounce = 80 * time.Millisecond

	// How long content must stay unchanged before it is proposed: in a new directory, in
	// one that was there before, and if trust would be lost. See fileWatch.assess.
	standNew   = 5 * time.Millisecond
	standKnown = 20 * time.Millisecond
	standLoss  = time.Second

	modeNotify = "notify+poll"
	modePoll   = "poll"
)

// Source follows a set of files. It notices changes by notifications of the file system,
// for the directories of the files, their parents and the directories on the way of
// symbolic links, and always by polling too. Files may be written in place, renamed over,
// swapped by a link as Kubernetes does, or deleted and made again, and a directory may be
// replaced.
//
// A set is proposed when it reads the same again after some time: 5 ms in a new directory,
// 20 ms in one that was there before. If a set that changed in place lacks a root or a list
// of before, or its chain does not lead to its bundle, it must not be written to for 1 s:
// its writer may be between two blocks of a file, and content cannot tell. A writer that
// pauses for more than 1 s inside a file is taken to be done. Rename files instead, or swap
// a link: then there is no such wait.
//
// If notifications are not available, or a change came without one, the source only
// polls, and [rotation.Identity.Status] says so. Watch ends with an error only if the Set is
// not valid, or if it finds no good set of files in its first 2 s.
func Source(set Set) rotation.Source { return &source{set: set, notify: newWatcher} }

type source struct {
	set    Set
	notify func() (filewatch.Notifier, error)
}

func newWatcher() (filewatch.Notifier, error) { return filewatch.New() }

// SetNotifier replaces the notifications of the operating system. It is for tests of
// package rotation, which call it before the first Watch.
func (s *source) SetNotifier(open func() (filewatch.Notifier, error)) { s.notify = open }

// Watch implements [rotation.Source] for callers that wrap a file source.
func (s *source) Watch(ctx context.Context, yield func(rotation.Material) error) error {
	return s.WatchObserved(ctx, yield, silent{})
}

type silent struct{}

func (silent) Mode(string, error) {}
func (silent) Failed(error)       {}

// WatchObserved is Watch for package rotation, which asks for more than candidates.
func (s *source) WatchObserved(ctx context.Context, yield func(rotation.Material) error, o rotation.Observer) error {
	p, err := s.set.resolve()
	if err != nil {
		return fmt.Errorf("reading identity files: %w", err)
	}
	w := &fileWatch{set: p, yield: yield, observer: o, notify: s.notify, pause: debounce, unreadable: map[string]time.Time{}}
	defer w.stop()
	return w.run(ctx)
}

// fileWatch is one run of Watch. Its fields belong to the goroutine of Watch.
type fileWatch struct {
	set      resolvedSet
	yield    func(rotation.Material) error
	observer rotation.Observer
	notify   func() (filewatch.Notifier, error)

	n           filewatch.Notifier // nil: polling only
	mode        string             // as reported last
	why         string             // likewise
	watchErr    error              // why not all directories are watched
	missedEvent bool               // the last change came without a notification
	notified    bool               // this attempt follows a notification
	heardAt     time.Time          // when the last notification came
	pause       time.Duration      // between a notification and the attempt
	places      dirIDs             // of the previous attempt

	next     *candidate // not proposed yet, nil for none
	last     *candidate // accepted last, without its material
	reported bool       // a failure was reported
	since    time.Time  // when the present run of failures began
	retries  int        // in that run

	unreadable map[string]time.Time // since when, by the name of another certificate
}

// candidate is a set that was read and not yielded yet.
type candidate struct {
	digest    [sha256.Size]byte
	sums      map[string][sha256.Size]byte // by name
	m         rotation.Material            // empty once it was accepted
	has       trustContents                // of m, once it was accepted
	touched   time.Time                    // the latest modification of a file
	since     time.Time                    // when it was read first
	stableFor time.Duration                // how long from since it must stay unchanged
	heard     bool                         // a notification came with it
}

func (w *fileWatch) run(ctx context.Context) error {
	poll := time.NewTicker(w.set.poll)
	defer poll.Stop()
	w.notified = true // what is there at the start needs no notification
	for ctx.Err() == nil {
		next, err := w.readOnce()
		if err != nil {
			return err
		}
		w.wait(ctx, poll.C, next)
	}
	return ctx.Err()
}

// wait returns when there may be something to read: after a notification, after next if
// that is above 0, and at the next poll.
func (w *fileWatch) wait(ctx context.Context, poll <-chan time.Time, next time.Duration) {
	w.notified = false
	var changes <-chan struct{}
	if w.n != nil {
		changes = w.n.Changes()
	}
	var again <-chan time.Time
	if next > 0 {
		t := time.NewTimer(next)
		defer t.Stop()
		again = t.C
	}
	select {
	case <-ctx.Done():
	case _, alive := <-changes:
		if !alive {
			w.stop() // the next attempt starts another notifier
			return
		}
		w.debouncePause(ctx)
	case <-again:
	case <-poll:
	}
}

// debouncePause waits after a notification, so that changes which follow soon are read
// with it.
func (w *fileWatch) debouncePause(ctx context.Context) {
	if time.Since(w.heardAt) > time.Second {
		w.pause = debounce
	}
	_ = wallclock.Sleep(ctx, w.pause) // the caller looks at ctx
	select {
	case <-w.n.Changes():
	default:
	}
	w.notified, w.missedEvent, w.retries, w.heardAt = true, false, 0, time.Now()
}

// readOnce reads the set and proposes it if it has changed. next is when to try again; 0
// means with the next notification or poll. An error ends Watch.
func (w *fileWatch) readOnce() (next time.Duration, err error) {
	next, err = w.read()
	if next > 0 {
		return next, nil
	}
	if err == nil {
		if w.reported {
			w.observer.Failed(nil)
		}
		w.reported, w.retries, w.since = false, 0, time.Time{}
		return 0, nil
	}
	if w.since.IsZero() {
		w.since = time.Now()
	}
	if time.Since(w.since) >= patience {
		if w.last == nil {
			return 0, err
		}
		w.observer.Failed(err)
		w.reported = true
	}
	w.retries++
	return backoff.Step(minRetry, maxRetry, w.retries-1), nil
}

// read yields the set on disk, unless it was accepted already. If the set must stay
// unchanged for some time first, it returns that time. A refused set is yielded again with each
// attempt, because the answer may depend on more than the files.
func (w *fileWatch) read() (again time.Duration, err error) {
	r, before, err := w.snapshot()
	if err != nil {
		w.next = nil
		return 0, fmt.Errorf("reading identity files: %w", err)
	}
	if w.last != nil && w.last.digest == r.digest {
		w.next = nil
		if w.notified { // of a change of other files
			w.pause = min(2*w.pause, maxDebounce)
		}
		return 0, nil
	}
	w.pause = debounce
	if w.next == nil || w.next.digest != r.digest {
		if w.next, err = w.assess(r, before); err != nil {
			return 0, err
		}
	}
	c := w.next
	if c.stableFor == standLoss && !c.touched.Equal(r.touched) { // written again, with the same content
		c.touched, c.since = r.touched, time.Now()
	}
	c.heard = c.heard || w.notified
	if left := c.stableFor - time.Since(c.since); left > 0 {
		return left, nil
	}
	if w.awaitOthers(c.m) {
		return othersStep, nil
	}
	if err := w.yield(c.m); err != nil {
		return 0, err
	}
	c.has, c.m = contentsOf(c.m), rotation.Material{} // so that neither key nor lists stay in memory
	w.last, w.next = c, nil
	w.missedEvent = w.n != nil && !c.heard
	w.report()
	return 0, nil
}

// awaitOthers reports whether one of the other certificates cannot be read, and has been
// so for less than patience: its writer may not be done. The set then waits, because a
// program that writes one pair often writes the others too.
func (w *fileWatch) awaitOthers(m rotation.Material) (wait bool) {
	for i, name := range m.OtherNames {
		since, bad := w.unreadable[name]
		switch {
		case m.OtherErrors[i] == nil:
			delete(w.unreadable, name)
		case !bad:
			w.unreadable[name] = time.Now()
			wait = true
		default:
			wait = wait || time.Since(since) < patience
		}
	}
	return wait
}

// snapshot resolves the links and reads the set. before has the directories of the files
// at the previous attempt.
func (w *fileWatch) snapshot() (r *fileSnapshot, before dirIDs, err error) {
	links := newResolver()
	paths, failed, err := links.all(w.set)
	before, w.places = w.places, links.places
	// Watch before reading, even if links are broken, so that no later change is missed.
	w.watchDirs(links.watched())
	if err != nil {
		return nil, nil, err
	}
	r, err = load(w.set, paths, failed)
	return r, before, err
}

// assess makes a candidate of a snapshot, and decides how long it must stay unchanged.
func (w *fileWatch) assess(r *fileSnapshot, before dirIDs) (*candidate, error) {
	m, err := r.material(w.set)
	if err != nil {
		return nil, err
	}
	c := &candidate{digest: r.digest, sums: map[string][sha256.Size]byte{}, m: m, touched: r.touched, since: time.Now(), stableFor: standNew}
	inPlace := false
	for name, f := range r.parts {
		c.sums[name] = f.sum
		changed := w.last == nil || w.last.sums[name] != f.sum
		inPlace = inPlace || changed && before.has(f.dir, w.places[f.dir])
	}
	switch {
	case inPlace && w.last != nil && (w.last.has.missingFrom(m) || leavesBundle(m)):
		c.stableFor = standLoss
	case inPlace || !w.notified: // long enough for a notification to come, else missedEvent would be wrong
		c.stableFor = standKnown
	}
	return c, nil
}

// watchDirs makes the notifier follow the directories. If there is no notifier, each
// attempt tries to start one, because limits of the system may have changed.
func (w *fileWatch) watchDirs(dirs []string) {
	failed := w.watchErr != nil
	w.watchErr = nil
	if w.n == nil {
		n, err := w.notify()
		if err != nil {
			w.watchErr = err
			w.report()
			return
		}
		w.n = n
		failed = true
	}
	w.watchErr = w.n.SetDirs(dirs)
	if failed && w.watchErr == nil { // earlier changes could not be notified
		w.notified, w.missedEvent = true, false
	}
	w.report()
}

var errDeaf = errors.New("a change came without a notification")

// report tells the observer how changes are noticed, if that has changed.
func (w *fileWatch) report() {
	mode, why := modeNotify, w.watchErr
	if why == nil && w.missedEvent {
		why = errDeaf
	}
	if why != nil {
		mode = modePoll
	}
	if mode != w.mode || errtext.Of(why) != w.why {
		w.mode, w.why = mode, errtext.Of(why)
		w.observer.Mode(mode, why)
	}
}

func (w *fileWatch) stop() {
	if w.n != nil {
		w.n.Close()
		w.n = nil
	}
}
