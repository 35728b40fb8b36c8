package rotation

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

const (
	defaultPoll = 30 * time.Second
	minRetry    = 10 * time.Millisecond
	maxRetry    = time.Second
	mendStep    = 100 * time.Millisecond // between looks while one of the other certificates cannot be read
	// patience is how long a set may be unreadable or torn before anyone is
	// told: writers that do not rename take a moment. At the start it is also
	// how long a missing file may take to appear.
	patience = 2 * time.Second

	// debounce is counted from the first notification of a burst: writers touch
	// several files at once. In a directory where others write all the time it
	// grows to maxDebounce.
	debounce    = 5 * time.Millisecond
	maxDebounce = 80 * time.Millisecond

	// How long content must stand before it is believed; see fileWatch.stand.
	standNew   = 5 * time.Millisecond
	standKnown = 20 * time.Millisecond
	standLoss  = time.Second

	modeNotify = "notify+poll"
	modePoll   = "poll"
)

// Files follows a set of files. Changes are noticed through the file system's
// notifications for the directories, their parents and whatever symbolic links
// lead through, and by polling, always: written in place, renamed over, swapped
// by a link as Kubernetes does, deleted and made anew, or with the directory
// replaced. All files are read through one resolution of the links, and must
// read the same again after a while: 5 ms in a directory that was not there
// before, 20 ms in one that was. A set there that takes away a root or a list,
// or whose chain does not lead to its bundle, must stand untouched for 1 s: a writer may
// be between two blocks of a file, and content alone cannot tell. A writer that
// pauses for longer in such a place is believed; one that renames, or swaps a
// link, never is in one.
//
// Where notifications are not available, or a change came without one, polling
// remains, and Status says so. Watching gives up with an error only when it
// finds no good set at its start.
func Files(f FileSet) Source { return &files{set: f, notify: newFSNotifier} }

type files struct {
	set    FileSet
	notify func() (notifier, error)
}

// notifier is the seam to the operating system: inotify in a synctest bubble
// would stop the clock.
type notifier interface {
	watch(dirs []string) error // replaces what is watched
	// changes has capacity 1; one value stands for any number of changes. It is
	// closed when notification ends by itself.
	changes() <-chan struct{}
	close() // joins
}

// Watch implements [Source] for callers that wrap a file source.
func (f *files) Watch(ctx context.Context, yield func(Material) error) error {
	return f.watch(ctx, yield, silent{})
}

type silent struct{}

func (silent) watching(string, error) {}
func (silent) failing(error)          {}

func (f *files) watch(ctx context.Context, yield func(Material) error, say observer) error {
	p, err := f.set.plan()
	if err != nil {
		return fmt.Errorf("reading identity files: %w", err)
	}
	w := &fileWatch{plan: p, yield: yield, say: say, notify: f.notify, pause: debounce, unreadable: map[string]time.Time{}}
	defer w.stop()
	return w.run(ctx)
}

// fileWatch is one run of Watch. Its fields belong to the goroutine of Watch.
type fileWatch struct {
	plan   plan
	yield  func(Material) error
	say    observer
	notify func() (notifier, error)

	n        notifier // nil: polling only
	mode     string   // as last said
	why      string   // likewise
	watchErr error    // why not all directories are watched
	deaf     bool     // the last change came without notification
	heard    bool     // this attempt was notified
	heardAt  time.Time
	pause    time.Duration // before a notification is followed
	places   places        // of the previous attempt

	next  *candidate
	last  *candidate // as last accepted, without the material
	told  bool       // a failure was reported
	since time.Time  // of an unbroken run of failures
	retry time.Duration

	unreadable map[string]time.Time // since when, of the other certificates
}

// candidate is a set that was read and not yielded yet.
type candidate struct {
	digest  [sha256.Size]byte
	sums    map[string][sha256.Size]byte // by name
	m       Material                     // empty once it was accepted
	has     essentials                   // of it then
	touched time.Time
	since   time.Time
	stand   time.Duration // from since
	heard   bool          // a notification came with it
}

func (w *fileWatch) run(ctx context.Context) error {
	poll := time.NewTicker(w.plan.poll)
	defer poll.Stop()
	w.heard = true // what is there at the start needs no notification
	for ctx.Err() == nil {
		next, err := w.attempt()
		if err != nil {
			return err
		}
		w.wait(ctx, poll.C, next)
	}
	return ctx.Err()
}

// wait returns when there may be something to read.
func (w *fileWatch) wait(ctx context.Context, poll <-chan time.Time, next time.Duration) {
	w.heard = false
	var changes <-chan struct{}
	if w.n != nil {
		changes = w.n.changes()
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
		w.hear(ctx)
	case <-again:
	case <-poll:
	}
}

// hear follows a notification after a pause. Whatever follows in the pause is
// read with it.
func (w *fileWatch) hear(ctx context.Context) {
	if time.Since(w.heardAt) > time.Second {
		w.pause = debounce
	}
	sleep(ctx, w.pause)
	select {
	case <-w.n.changes():
	default:
	}
	w.heard, w.deaf, w.retry, w.heardAt = true, false, 0, time.Now()
}

// attempt reads once, yields what changed, and says when to try again (0: on
// the next notification or poll). Its error ends Watch.
func (w *fileWatch) attempt() (next time.Duration, err error) {
	next, err = w.read()
	if next > 0 {
		return next, nil
	}
	if err == nil {
		if w.told {
			w.say.failing(nil)
		}
		w.told, w.retry, w.since = false, 0, time.Time{}
		return 0, nil
	}
	if w.since.IsZero() {
		w.since = time.Now()
	}
	if time.Since(w.since) >= patience {
		if w.last == nil {
			return 0, err
		}
		w.say.failing(err)
		w.told = true
	}
	w.retry = min(max(2*w.retry, minRetry), maxRetry)
	return w.retry, nil
}

// read yields what is on disk unless that was accepted already. What must stand
// for a while first it looks at again after that time. A refused set is yielded
// again with each attempt: the answer may depend on more than the files.
func (w *fileWatch) read() (again time.Duration, err error) {
	r, before, err := w.look()
	if err != nil {
		w.next = nil
		return 0, fmt.Errorf("reading identity files: %w", err)
	}
	if w.last != nil && w.last.digest == r.digest {
		w.next = nil
		if w.heard { // of the business of others
			w.pause = min(2*w.pause, maxDebounce)
		}
		return 0, nil
	}
	w.pause = debounce
	if w.next == nil || w.next.digest != r.digest {
		if w.next, err = w.consider(r, before); err != nil {
			return 0, err
		}
	}
	c := w.next
	if c.stand == standLoss && !c.touched.Equal(r.touched) { // written again, be it the same
		c.touched, c.since = r.touched, time.Now()
	}
	c.heard = c.heard || w.heard
	if left := c.stand - time.Since(c.since); left > 0 {
		return left, nil
	}
	if w.mayMend(c.m) {
		return mendStep, nil
	}
	if err := w.yield(c.m); err != nil {
		return 0, err
	}
	c.has, c.m = essentialsOf(c.m), Material{} // neither the key nor long lists stay in memory
	w.last, w.next = c, nil
	w.deaf = w.n != nil && !c.heard
	w.report()
	return 0, nil
}

// mayMend reports whether one of the other certificates could not be read, and
// that for so short a time that its writer may still be at it. It is then worth
// waiting for: the writer of one pair often writes the other ones too.
func (w *fileWatch) mayMend(m Material) (wait bool) {
	for _, o := range m.others {
		since, bad := w.unreadable[o.name]
		switch {
		case o.err == nil:
			delete(w.unreadable, o.name)
		case !bad:
			w.unreadable[o.name] = time.Now()
			wait = true
		default:
			wait = wait || time.Since(since) < patience
		}
	}
	return wait
}

// look reads the set through a fresh resolution. before is where the files were at the last look.
func (w *fileWatch) look() (r *reading, before places, err error) {
	links := newResolver()
	paths, failed, err := links.all(w.plan)
	before, w.places = w.places, links.places
	// Watch before reading, also when links are broken: what changes after this is noticed.
	w.watchDirs(links.watched())
	if err != nil {
		return nil, nil, err
	}
	r, err = load(w.plan, paths, failed)
	return r, before, err
}

// consider makes a reading a candidate and says how long it must stand.
func (w *fileWatch) consider(r *reading, before places) (*candidate, error) {
	m, err := r.material(w.plan)
	if err != nil {
		return nil, err
	}
	c := &candidate{digest: r.digest, sums: map[string][sha256.Size]byte{}, m: m, touched: r.touched, since: time.Now(), stand: standNew}
	inPlace := false
	for name, f := range r.parts {
		c.sums[name] = f.sum
		changed := w.last == nil || w.last.sums[name] != f.sum
		inPlace = inPlace || changed && before.has(f.dir, w.places[f.dir])
	}
	switch {
	case inPlace && w.last != nil && (w.last.has.lostIn(m) || strays(m)):
		c.stand = standLoss
	case inPlace || !w.heard: // a notification on its way must not be taken for none
		c.stand = standKnown
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
	w.watchErr = w.n.watch(dirs)
	if failed && w.watchErr == nil { // what changed until now could not be heard of
		w.heard, w.deaf = true, false
	}
	w.report()
}

var errDeaf = errors.New("a change came without a notification")

// report says how changes are noticed, when that is news.
func (w *fileWatch) report() {
	mode, why := modeNotify, w.watchErr
	if why == nil && w.deaf {
		why = errDeaf
	}
	if why != nil {
		mode = modePoll
	}
	if mode != w.mode || text(why) != w.why {
		w.mode, w.why = mode, text(why)
		w.say.watching(mode, why)
	}
}

func (w *fileWatch) stop() {
	if w.n != nil {
		w.n.close()
		w.n = nil
	}
}
