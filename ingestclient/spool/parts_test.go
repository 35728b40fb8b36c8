package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/spool/internal/fileat"
	"github.com/artstore/artstore-pki/ingestclient/spool/internal/journal"
	"github.com/artstore/artstore-pki/internal/uuid"
)

func TestBreaker(t *testing.T) {
	at := time.Unix(1000, 0)
	g := &breaker{jitter: func() float64 { return 1 }}
	down := errors.New("down")
	if as := g.allow(at); as != admitFile {
		t.Fatal("an open gate admits")
	}
	if !g.failure(outcomeElement, down, admitFile, at) || g.failure(outcomeElement, down, admitFile, at) {
		t.Error("the first failure closes it, those already under way say nothing new")
	}
	if as := g.allow(at.Add(pauseMin - 1)); as != admitNothing {
		t.Error("admitted within the pause")
	}
	if as := g.allow(at.Add(pauseMin)); as != admitTrial {
		t.Error("no trial after the pause")
	}
	if as := g.allow(at.Add(time.Hour)); as != admitNothing {
		t.Error("a second trial beside the first")
	}
	g.release(admitTrial)
	if as := g.allow(at.Add(pauseMin)); as != admitTrial {
		t.Error("no trial after one that told nothing")
	}
	g.failure(outcomeElement, down, admitTrial, at)
	if want := at.Add(2 * pauseMin); !g.until.Equal(want) {
		t.Errorf("next trial %s, want %s", g.until, want)
	}
	if !g.success() || g.success() {
		t.Error("the first success opens it, later ones find it open")
	}
}

// TestBreakerAfterUnknownOutcomes expects that elements are probed before each trial. An
// element that says that it is ready but loses files gets three files, then one after
// half an hour, one after an hour and so on.
func TestBreakerAfterUnknownOutcomes(t *testing.T) {
	at := time.Unix(1000, 0)
	g := &breaker{jitter: func() float64 { return 1 }, asks: true, closed: true}
	trials := 0
	for end := at.Add(3 * time.Hour); at.Before(end); at = at.Add(time.Second) {
		switch g.allow(at) {
		case admitFile:
			t.Fatal("a closed gate admits any file")
		case admitProbe:
			g.probed(at)
		case admitTrial:
			trials++
			g.failure(outcomeUnknown, ingestclient.ErrAmbiguous, admitTrial, at)
		}
	}
	if want := maxRisked + 2; trials != want { // after 30 and 90 minutes; the next is due after 210
		t.Errorf("%d files were risked in three hours, want %d", trials, want)
	}
	if !g.success() || g.risked != 0 {
		t.Error("a stored file does not reset it")
	}
}

func TestPause(t *testing.T) {
	for _, tt := range []struct {
		why  outcome
		n    int
		u    float64
		want time.Duration
	}{
		{outcomeElement, 1, 0, pauseMin / 2},
		{outcomeElement, 1, 1, pauseMin},
		{outcomeFull, 3, 1, 4 * pauseMin},
		{outcomeElement, 1000, 1, pauseMax},
		{outcomeCredentials, 1, 1, pauseRefused},
		{outcomeCredentials, 1000, 0, pauseLockout / 2},
	} {
		if got := probeDelay(tt.why, tt.n, tt.u); got != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}

func TestClassify(t *testing.T) {
	up := func(status int, err error) error {
		return &ingestclient.RequestError{Op: "uploading", Status: status, Attempt: 1, Err: err}
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		ctx  context.Context // a case
		err  error
		want outcome
	}{
		{t.Context(), journal.ErrWrite, outcomeLocal},
		{t.Context(), up(500, fmt.Errorf("%w: %w", ingestclient.ErrAmbiguous, ingestclient.ErrServer)), outcomeUnknown},
		{t.Context(), up(0, ingestclient.ErrFileChanged), outcomeChanged},
		{t.Context(), up(0, fmt.Errorf("%w: %w", ingestclient.ErrContent, fs.ErrNotExist)), outcomeGone},
		{t.Context(), up(0, fmt.Errorf("%w: %w", ingestclient.ErrContent, fs.ErrPermission)), outcomeRefused},
		{stopped, up(0, context.Canceled), outcomeStopped},
		{t.Context(), up(0, ingestclient.ErrClosed), outcomeStopped},
		{t.Context(), up(507, ingestclient.ErrFull), outcomeFull},
		{t.Context(), up(403, ingestclient.ErrForbidden), outcomeCredentials},
		{t.Context(), up(413, ingestclient.ErrTooLarge), outcomeRefused},
		{t.Context(), up(422, ingestclient.ErrRejected), outcomeRefused},
		{t.Context(), up(302, ingestclient.ErrRejected), outcomeElement},
		{t.Context(), up(405, ingestclient.ErrRejected), outcomeElement},
		{t.Context(), up(404, ingestclient.ErrNotFound), outcomeElement},
		{t.Context(), errors.New("never heard of"), outcomeElement},
	} {
		if got := classify(tt.ctx, tt.err); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestPauseReason(t *testing.T) {
	of := func(err error) error { return fmt.Errorf("%w: %w", ingestclient.ErrConnection, err) }
	for _, tt := range []struct {
		v    outcome
		err  error
		want string
	}{
		{outcomeLocal, journal.ErrWrite, "disk"},
		{outcomeFull, ingestclient.ErrFull, "full"},
		{outcomeFull, ingestclient.ErrMode, "mode"},
		{outcomeElement, fmt.Errorf("%w: %w", ingestclient.ErrUnavailable, ingestclient.ErrFull), "full"},
		{outcomeElement, ingestclient.ErrUnavailable, "failing"},
		{outcomeUnknown, fmt.Errorf("%w: %w", ingestclient.ErrAmbiguous, ingestclient.ErrServer), "failing"},
		{outcomeUnknown, fmt.Errorf("%w: %w", ingestclient.ErrAmbiguous, ingestclient.ErrNoAnswer), "hanging"},
		{outcomeElement, ingestclient.ErrStalled, "hanging"},
		{outcomeElement, of(os.ErrDeadlineExceeded), "hanging"},
		{outcomeElement, of(fs.ErrClosed), "unreachable"},
		{outcomeElement, of(ingestclient.ErrTLSPeer), "tls"},
		{outcomeElement, &ingestclient.AuthError{Err: of(ingestclient.ErrTokenEndpoint)}, "token"},
		{outcomeCredentials, &ingestclient.AuthError{Err: ingestclient.ErrCredentials}, "credentials"},
		{outcomeElement, errors.New("never heard of"), "element"},
	} {
		if got := pauseReason(tt.v, tt.err); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestSentNothing(t *testing.T) {
	again := &ingestclient.RequestError{Attempt: 3, Err: ingestclient.ErrConnection}
	for _, tt := range []struct {
		err    error
		chosen bool
		want   bool
	}{
		{ingestclient.ErrAmbiguous, false, false},
		{ingestclient.ErrChecksum, false, false},
		{again, false, true}, // without an id nothing is repeated that may be stored
		{again, true, false},
		{&ingestclient.RequestError{Attempt: 1, Err: ingestclient.ErrConnection}, true, true},
		{errors.New("not an upload error"), true, false},
	} {
		if got := sentNothing(tt.err, tt.chosen); got != tt.want {
			t.Errorf("%v, chosen %v: %v", tt.err, tt.chosen, got)
		}
	}
}

// TestQueue expects that large files use half of the workers at most, and that the older
// of two files is sent first.
func TestQueue(t *testing.T) {
	l := &queue{workers: 4}
	file := func(name string, size int64, age int64) *item {
		return &item{name: name, seen: fileat.ID{Size: size, MTime: -age}}
	}
	for i := range 4 {
		l.push(file(fmt.Sprint("huge", i), largeFrom, int64(100-i)))
	}
	if l.hasRoom(true) || !l.hasRoom(false) {
		t.Error("four huge files fill their lane and no other")
	}
	for i := range 4 {
		l.push(file(fmt.Sprint("small", i), 1, int64(10-i)))
	}
	var got []string
	var taken []*item
	for it := l.pop(); it != nil; it = l.pop() {
		got, taken = append(got, it.name), append(taken, it)
	}
	if fmt.Sprint(got) != "[huge0 huge1 small0 small1]" {
		t.Errorf("order %v", got)
	}
	l.end(taken[0])
	if it := l.pop(); it.name != "huge2" {
		t.Errorf("then %s", it.name)
	}
	l.end(taken[1])
	l.large[0].tries = 1 // it failed: the probe is another one
	if it := l.pop(); it.name != "small2" {
		t.Errorf("then %s", it.name)
	}
	if l.size() != 2 || len(l.takeAll()) != 2 || l.size() != 0 {
		t.Error("rest does not empty it")
	}
}

// TestStability expects that only the time without a change counts, whatever the
// modification time is.
func TestStability(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stability{after: 2 * time.Second}
		f := foundFile{name: "a", id: fileat.ID{Size: 1, MTime: 1}} // decades old
		if done, again := s.update([]foundFile{f}, time.Now()); len(done) != 0 || again != 2*time.Second {
			t.Errorf("at once: %v, %s", done, again)
		}
		time.Sleep(1500 * time.Millisecond)
		f.id.Size = 2
		if done, again := s.update([]foundFile{f}, time.Now()); len(done) != 0 || again != 2*time.Second {
			t.Errorf("after a write: %v, %s", done, again)
		}
		time.Sleep(2 * time.Second)
		older := foundFile{name: "b", id: fileat.ID{MTime: 0}}
		s.seen["b"] = firstSeen{older.id, time.Time{}}
		if done, again := s.update([]foundFile{f, older}, time.Now()); len(done) != 2 || done[0].name != "b" || again != 0 {
			t.Errorf("after two seconds: %v, %s", done, again)
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testLayout(t *testing.T) layout {
	t.Helper()
	l, err := openLayout(Config{Dir: t.TempDir()}, true)
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

// TestClaimAndUnclaim expects that a claim takes the file that was seen or nothing, and
// that its return replaces no file.
func TestClaimAndUnclaim(t *testing.T) {
	l := testLayout(t)
	write := func(content string) fileat.ID {
		must(t, os.WriteFile(filepath.Join(l.dir, "a"), []byte(content), 0o600))
		info, err := os.Lstat(filepath.Join(l.dir, "a"))
		must(t, err)
		return fileat.IDOf(info)
	}
	seen := write("one")
	write("longer")
	if err := l.claimFile("x", "a", seen); !errors.Is(err, errMoved) {
		t.Errorf("a changed file: %v", err)
	}
	info, err := os.Lstat(filepath.Join(l.dir, "a"))
	must(t, err)
	must(t, l.claimFile("x", "a", fileat.IDOf(info)))
	must(t, l.syncClaim("x", "a"))
	write("namesake")
	if err := l.unclaim("x", "a"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a namesake: %v", err)
	}
	must(t, os.Remove(filepath.Join(l.dir, "a")))
	must(t, os.Link(l.path(contentPath("x", "a")), filepath.Join(l.dir, "a"))) // killed between link and remove
	must(t, l.unclaim("x", "a"))
	if got, _ := os.ReadFile(filepath.Join(l.dir, "a")); string(got) != "longer" {
		t.Errorf("came back as %q", got)
	}
	if err := l.claimFile("y", "absent", fileat.ID{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent file: %v", err)
	}
	if left, _ := os.ReadDir(l.path(claimedDir)); len(left) != 0 {
		t.Errorf("left in work: %v", left)
	}
	must(t, os.MkdirAll(filepath.Join(l.dir, "sub", "below"), 0o700)) // in the place of a file, at the last moment
	if err := l.claimFile("z", "sub", seen); !errors.Is(err, errMoved) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(l.dir, "sub", "below")); err != nil {
		t.Error(err)
	}
}

// TestUnclaimKeepsWhatMayBeStored expects that a file that may be stored stays claimed,
// that a failed quarantine is tried again, and that a file that fails alone is
// quarantined.
func TestUnclaimKeepsWhatMayBeStored(t *testing.T) {
	s := &Spool{layout: testLayout(t), cfg: Config{Logger: slog.New(slog.DiscardHandler)}}
	must(t, os.WriteFile(filepath.Join(s.layout.dir, "a"), []byte("x"), 0o600))
	info, err := os.Lstat(filepath.Join(s.layout.dir, "a"))
	must(t, err)
	must(t, s.layout.claimFile("x", "a", fileat.IDOf(info)))
	l := &loop{Spool: s, queue: queue{workers: 1}}
	l.unclaimItem(&item{id: "x", name: "a", open: true})
	if l.queue.size() != 1 {
		t.Fatal("not queued again")
	}
	if it := l.queue.takeAll()[0]; it.seen != fileat.IDOf(info) {
		t.Errorf("not looked at again: %+v", it.seen)
	}
	l.stopping = true
	l.unclaimItem(&item{id: "x", name: "a", open: true})
	if _, err := os.Lstat(s.layout.path(contentPath("x", "a"))); err != nil || l.queue.size() != 0 {
		t.Errorf("at the end: %v, %d queued", err, l.queue.size())
	}
	l.logTrouble(errors.New("trouble"))
	if !l.isFinished() {
		t.Error("a run that only empties the directory goes on without being able to")
	}
	l.logTrouble(nil)
}

// bare is a spool without an element.
func bare(t *testing.T, after SourceAction) *Spool {
	t.Helper()
	s, err := Open(Config{Dir: t.TempDir(), Uploader: failingUploader{}, OnSuccess: after, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

type failingUploader struct{}

func (failingUploader) Upload(context.Context, ingestclient.Content, ingestclient.Meta) (*ingestclient.File, error) {
	return nil, errors.New("nobody is here")
}

func (s *Spool) testClaim(t *testing.T, content string) *item {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(s.layout.dir, "a"), []byte(content), 0o600))
	info, err := os.Lstat(filepath.Join(s.layout.dir, "a"))
	must(t, err)
	it := &item{id: uuid.New(), name: "a", seen: fileat.IDOf(info)}
	must(t, s.layout.claimFile(it.id, "a", it.seen))
	return it
}

func TestHashIsInterrupted(t *testing.T) {
	s := bare(t, DeleteSource)
	it := s.testClaim(t, "x")
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.hash(stopped, it)
	if out := s.readFailure(it, err, quarantineFailed); out.outcome != outcomeStopped || it.quarantined != nil {
		t.Errorf("%v: %+v", err, out)
	}
	_, err = s.hash(t.Context(), &item{id: it.id, name: "gone"})
	if out := s.readFailure(it, err, quarantineFailed); out.outcome != outcomeRefused || !errors.Is(out.err, fs.ErrNotExist) {
		t.Errorf("%v: %+v", err, out)
	}
	if list, err := s.layout.list(string(quarantineFailed)); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}

// TestStepsThatOurDiskRefuses blocks each step by a file where it needs a directory. The
// step is tried again, and the file stays claimed.
func TestStepsThatOurDiskRefuses(t *testing.T) {
	s := bare(t, MoveSource)
	block := func(path string) (unblock func()) {
		must(t, os.Rename(path, path+".away"))
		must(t, os.WriteFile(path, nil, 0o600))
		return func() {
			must(t, os.Remove(path))
			must(t, os.Rename(path+".away", path))
		}
	}
	it := s.testClaim(t, "x")
	it.stored = it.newRecord(journal.OpStored)
	unblock := block(s.layout.path(doneDir))
	if out := s.deliver(t.Context(), it); out.outcome != outcomeLocal || !it.logged {
		t.Errorf("archive: %+v", out)
	}
	unblock()
	if out := s.deliver(t.Context(), it); out.outcome != outcomeStored {
		t.Errorf("archive again: %+v", out)
	}
	it = s.testClaim(t, "y")
	unblock = block(s.layout.path(string(quarantineFailed)))
	if out := s.quarantineItem(it, errOther, quarantineFailed); out.outcome != outcomeLocal {
		t.Errorf("aside: %+v", out)
	}
	unblock()
	if out := s.deliver(t.Context(), it); out.outcome != outcomeRefused {
		t.Errorf("aside again: %+v", out)
	}
	it = s.testClaim(t, "z")
	must(t, s.journal.Close())
	content := &claimContent{spool: s, item: it}
	f, _, err := content.Open()
	must(t, err)
	if err := f.(*claimReader).Unchanged(); !errors.Is(err, journal.ErrWrite) || it.open {
		t.Errorf("intent: %v", err)
	}
	must(t, f.Close())
	it.stored = it.newRecord(journal.OpStored)
	if out := s.deliver(t.Context(), it); out.outcome != outcomeLocal || it.logged {
		t.Errorf("receipt: %+v", out)
	}
	s.journal = nil // the test has closed it
}

// TestReaderThatOutlivesTheUpload lets a transport read after the upload has returned,
// while the loop uses the item. The two share no data, and no intent is written after
// the upload.
func TestReaderThatOutlivesTheUpload(t *testing.T) {
	s := bare(t, DeleteSource)
	for range 20 {
		it := s.testClaim(t, "x")
		content := &claimContent{spool: s, item: it}
		f, _, err := content.Open()
		must(t, err)
		info, err := os.Lstat(s.layout.path(contentPath(it.id, it.name)))
		must(t, err)
		late := make(chan error, 1)
		content.finish()
		go func() { late <- f.(*claimReader).Unchanged() }()
		s.seeAgain(it, info)
		if err := <-late; !errors.Is(err, errUploadEnded) || it.open {
			t.Errorf("after the end: %v", err)
		}
		must(t, f.Close())
		must(t, s.layout.removeClaim(it.id))
	}
}

// TestRunEndsWithTheJournal expects that Run ends if the journal cannot be written, and
// that the next start goes on.
func TestRunEndsWithTheJournal(t *testing.T) {
	s := bare(t, DeleteSource)
	must(t, s.journal.Close())
	if err := s.Run(t.Context()); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Run: %v", err)
	}
	s.journal = nil // the test has closed it
}

// TestEventsThatAreNothing expects that events of the watcher about other things than
// files change nothing.
func TestEventsThatAreNothing(t *testing.T) {
	s := bare(t, DeleteSource)
	l := &loop{Spool: s, scanner: scanner{dir: s.layout.dir}, stability: stability{seen: map[string]firstSeen{}}, nextScan: time.Now().Add(time.Hour)}
	must(t, os.Symlink("elsewhere", filepath.Join(s.layout.dir, "link")))
	must(t, os.WriteFile(filepath.Join(s.layout.dir, "a"), nil, 0o600))
	for _, e := range []event{{path: filepath.Join(s.layout.dir, "gone"), moved: true}, {path: filepath.Join(s.layout.dir, ".hidden"), moved: true},
		{path: filepath.Join(s.layout.dir, "link"), moved: true}, {path: filepath.Join(s.layout.dir, "a")}} {
		if l.handleChange(e, time.Now()); len(l.ready) != 0 {
			t.Errorf("%+v is ready", e)
		}
	}
	for range 2 {
		l.handleChange(event{path: filepath.Join(s.layout.dir, "a"), moved: true}, time.Now())
	}
	if len(l.ready) != 1 {
		t.Errorf("ready %v", l.ready)
	}
	now := time.Now()
	if l.handleChange(event{}, now); !l.nextScan.Equal(now) {
		t.Error("lost events cause no scan")
	}
}

// TestRunLeavesNoGoroutine expects that all goroutines of Run have ended when it
// returns.
func TestRunLeavesNoGoroutine(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	s := bare(t, DeleteSource)
	s.cfg.Once, s.cfg.Settle = true, -1
	must(t, os.WriteFile(filepath.Join(s.layout.dir, "a"), nil, 0o600))
	before := runtime.NumGoroutine()
	must(t, s.Run(t.Context()))
	// A goroutine that was joined may still be on its last instructions.
	for limit := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(limit) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines before, now\n%s", before, buf[:runtime.Stack(buf, true)])
		}
	}
}
