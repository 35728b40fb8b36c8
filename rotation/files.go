package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	defaultPoll = 30 * time.Second
	debounce    = 10 * time.Millisecond // writers touch several files at once
	minRetry    = 10 * time.Millisecond
	maxRetry    = time.Second
	// patience is how long a set may be unreadable or torn before anyone is
	// told: writers that do not rename take a moment. At the start it is also
	// how long a missing file may take to appear.
	patience = 2 * time.Second

	modeNotify = "notify+poll"
	modePoll   = "poll"
)

// FileSet names the files of one identity, in PEM.
type FileSet struct {
	Cert string        // leaf first, then its issuers
	Key  string        // PKCS#8, SEC 1 or PKCS#1, unencrypted; "" when Cert holds the key too
	CA   string        // trust bundle
	Poll time.Duration // how often to look without being notified; default 30 s
}

// Files follows a set of files. Changes are noticed through the file system's
// notifications for the directories, their parents and whatever symbolic links
// lead through, and by polling, always: written in place, renamed over, swapped
// by a link as Kubernetes does, deleted and made anew, or with the directory
// replaced. All files are read through one resolution of the links and twice,
// until both readings agree. Where notifications are not available polling
// remains, and Status says so.
//
// Watching gives up with an error only when it finds no good set at its start.
func Files(f FileSet) Source { return &files{set: f, notify: newFSNotifier} }

type files struct {
	set    FileSet
	notify func() (notifier, error)
}

// notifier is the seam to the operating system: inotify in a synctest bubble
// would stop the clock.
type notifier interface {
	watch(dirs []string) error // replaces what is watched
	changes() <-chan struct{}  // capacity 1; one value stands for any number of changes
	close()                    // joins
}

// Watch implements [Source] for callers that wrap a file source.
func (f *files) Watch(ctx context.Context, yield func(Material) error) error {
	return f.watch(ctx, yield, silent{})
}

type silent struct{}

func (silent) watching(string, error) {}
func (silent) failing(error)          {}

func (f *files) watch(ctx context.Context, yield func(Material) error, say observer) error {
	set := f.set
	if set.Poll < 0 || set.Cert == "" || set.CA == "" {
		return errors.New("reading identity files: want Cert, CA and a Poll that is not negative")
	}
	if set.Poll == 0 {
		set.Poll = defaultPoll
	}
	w := &fileWatch{set: set, yield: yield, say: say, notify: f.notify}
	defer w.stop()
	return w.run(ctx)
}

// fileWatch is one run of Watch. Its fields belong to the goroutine of Watch.
type fileWatch struct {
	set    FileSet
	yield  func(Material) error
	say    observer
	notify func() (notifier, error)

	n       notifier  // nil: polling only
	mode    string    // as last said
	last    *reading  // as last yielded
	lastErr error     // what yield said to it
	good    bool      // a set was accepted
	told    bool      // a failure was reported
	since   time.Time // of an unbroken run of failures
	retry   time.Duration
}

func (w *fileWatch) run(ctx context.Context) error {
	poll := time.NewTicker(w.set.Poll)
	defer poll.Stop()
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
	case <-changes:
		sleep(ctx, debounce)
	case <-again:
	case <-poll:
	}
}

// attempt reads once, yields what changed, and says when to try again (0: on
// the next notification or poll). Its error ends Watch.
func (w *fileWatch) attempt() (next time.Duration, err error) {
	err = w.read()
	if err == nil {
		if w.told {
			w.say.failing(nil)
		}
		w.good, w.told, w.retry, w.since = true, false, 0, time.Time{}
		return 0, nil
	}
	if w.since.IsZero() {
		w.since = time.Now()
	}
	if time.Since(w.since) >= patience {
		if !w.good {
			return 0, err
		}
		w.say.failing(err)
		w.told = true
	}
	w.retry = min(max(2*w.retry, minRetry), maxRetry)
	return w.retry, nil
}

// read yields what is on disk unless that was yielded already; then the answer
// is the same as before.
func (w *fileWatch) read() error {
	links := newResolver()
	paths, err := links.all(w.set)
	// Watch before reading, also when links are broken: what changes after this is noticed.
	w.watchDirs(links.watched())
	if err != nil {
		return fmt.Errorf("reading identity files: %w", err)
	}
	once, err := load(paths)
	if err != nil {
		return fmt.Errorf("reading identity files: %w", err)
	}
	// The second reading resolves the links anew: a swap in between shows as a difference.
	if paths, err = newResolver().all(w.set); err != nil {
		return fmt.Errorf("reading identity files: %w", err)
	}
	twice, err := load(paths)
	if err != nil {
		return fmt.Errorf("reading identity files: %w", err)
	}
	if once.digest != twice.digest {
		return errChanging
	}
	if w.last != nil && w.last.digest == once.digest {
		return w.lastErr
	}
	m, err := once.material(w.set)
	if err != nil {
		return err
	}
	w.lastErr = w.yield(m)
	w.last = &reading{digest: once.digest} // without the key
	return w.lastErr
}

var errChanging = errors.New("reading identity files: they change while they are read")

// watchDirs has the notifier follow the directories. Without one, each attempt
// tries again to get one: the limits of the system may have eased.
func (w *fileWatch) watchDirs(dirs []string) {
	mode, why := modeNotify, error(nil)
	if w.n == nil {
		if w.n, why = w.notify(); why != nil {
			w.n = nil
		}
	}
	if w.n != nil {
		why = w.n.watch(dirs)
	}
	if why != nil {
		mode = modePoll
	}
	if mode != w.mode {
		w.mode = mode
		w.say.watching(mode, why)
	}
}

func (w *fileWatch) stop() {
	if w.n != nil {
		w.n.close()
	}
}
