// Package files is a [rotation.Source] of certificate, key and trust bundle in files,
// whoever replaces them:
//
//	id, err := rotation.Open(ctx, rotation.Config{Source: files.Source(files.Set{Dir: "/etc/tls"})})
package files

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/internal/backoff"
	"github.com/artstore/artstore-pki/internal/errtext"
	"github.com/artstore/artstore-pki/internal/wallclock"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/internal/filewatch"
)

const (
	defaultPoll = 30 * time.Second
	minRetry    = 10 * time.Millisecond
	maxRetry    = time.Second
	othersStep  = 100 * time.Millisecond // between looks while one of the other certificates cannot be read
	// patience is how long a set may be unreadable or torn before anyone is
	// told: writers that do not rename take a moment. At the start it is also
	// how long a missing file may take to appear.
	patience = 2 * time.Second

	// debounce is counted from the first notification of a burst: writers touch
	// several files at once. In a directory where others write all the time it
	// grows to maxDebounce.
	debounce    = 5 * time.Millisecond
	maxDebounce = 80 * time.Millisecond

	// How long content must stand before it is believed; see candidate.stableFor.
	standNew   = 5 * time.Millisecond
	standKnown = 20 * time.Millisecond
	standLoss  = time.Second

	modeNotify = "notify+poll"
	modePoll   = "poll"
)

// Source follows a set of files. Changes are noticed through the file system's
// notifications for the directories, their parents and whatever symbolic links
// lead through, and by polling, always: written in place, renamed over, swapped
// by a link as Kubernetes does, deleted and made anew, or with the directory
// replaced. All files are read through one resolution of the links, and must
// read the same again after a while: 5 ms in a directory that was not there
// before, 20 ms in one that was. A set there that takes away a root or a list,
// or whose chain does not lead to its bundle, must stand untouched for 1 s: a writer may
// be between two blocks of a file, and content alone cannot tell. A writer that
// pauses for more than 1 s inside a file is taken to be done; one that renames, or swaps a
// link, avoids the wait.
//
// Where notifications are not available, or a change came without one, polling
// remains, and [rotation.Identity.Status] says so. Watching gives up with an error only when it
// finds no good set at its start.
func Source(set Set) rotation.Source { return &source{set: set, notify: newWatcher} }

type source struct {
	set    Set
	notify func() (filewatch.Notifier, error)
}

func newWatcher() (filewatch.Notifier, error) { return filewatch.New() }

// SetNotifier has the source be told of changes in another way. It is for tests of
// package rotation and is called before the first Watch.
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
	mode        string             // as last said
	why         string             // likewise
	watchErr    error              // why not all directories are watched
	missedEvent bool               // the last change came without notification
	notified    bool               // this attempt was notified
	heardAt     time.Time
	pause       time.Duration // before a notification is followed
	places      dirIDs        // of the previous attempt

	next     *candidate
	last     *candidate // as last accepted, without the material
	reported bool       // a failure was reported
	since    time.Time  // of an unbroken run of failures
	retries  int        // in that run

	unreadable map[string]time.Time // since when, of the other certificates
}

// candidate is a set that was read and not yielded yet.
type candidate struct {
	digest    [sha256.Size]byte
	sums      map[string][sha256.Size]byte // by name
	m         rotation.Material            // empty once it was accepted
	has       trustContents                // of it then
	touched   time.Time
	since     time.Time
	stableFor time.Duration // from since
	heard     bool          // a notification came with it
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

// wait returns when there may be something to read.
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
			w.stop() // the next attempt starts another
			return
		}
		w.debouncePause(ctx)
	case <-again:
	case <-poll:
	}
}

// debouncePause follows a notification after a pause. Whatever follows in the pause is
// read with it.
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

// readOnce reads once, yields what changed, and says when to try again (0: on
// the next notification or poll). Its error ends Watch.
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

// read yields what is on disk unless that was accepted already. What must stand
// for a while first it looks at again after that time. A refused set is yielded
// again with each attempt: the answer may depend on more than the files.
func (w *fileWatch) read() (again time.Duration, err error) {
	r, before, err := w.snapshot()
	if err != nil {
		w.next = nil
		return 0, fmt.Errorf("reading identity files: %w", err)
	}
	if w.last != nil && w.last.digest == r.digest {
		w.next = nil
		if w.notified { // of the business of others
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
	if c.stableFor == standLoss && !c.touched.Equal(r.touched) { // written again, be it the same
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
	c.has, c.m = contentsOf(c.m), rotation.Material{} // neither the key nor long lists stay in memory
	w.last, w.next = c, nil
	w.missedEvent = w.n != nil && !c.heard
	w.report()
	return 0, nil
}

// awaitOthers reports whether one of the other certificates could not be read, and
// that for so short a time that its writer may still be at it. It is then worth
// waiting for: the writer of one pair often writes the other ones too.
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

// snapshot reads the set through a fresh resolution. before is where the files were at the last look.
func (w *fileWatch) snapshot() (r *fileSnapshot, before dirIDs, err error) {
	links := newResolver()
	paths, failed, err := links.all(w.set)
	before, w.places = w.places, links.places
	// Watch before reading, also when links are broken: what changes after this is noticed.
	w.watchDirs(links.watched())
	if err != nil {
		return nil, nil, err
	}
	r, err = load(w.set, paths, failed)
	return r, before, err
}

// assess makes a reading a candidate and says how long it must stand.
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
	case inPlace || !w.notified: // a notification on its way must not be taken for none
		c.stableFor = standKnown
	}
	return c, nil
}

// watchDirs has the notifier follow the directories. Without one, each attempt
// tries again to get one: the limits of the system may have eased.
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
	if failed && w.watchErr == nil { // what changed until now could not be heard of
		w.notified, w.missedEvent = true, false
	}
	w.report()
}

var errDeaf = errors.New("a change came without a notification")

// report says how changes are noticed, when that is news.
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
