package spool_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
	"github.com/artstore/artstore-pki/ingestclient/spool"
)

func TestOnSuccess(t *testing.T) {
	for _, after := range []spool.SourceAction{spool.DeleteSource, spool.MoveSource, spool.KeepSource} {
		t.Run(string(after), func(t *testing.T) {
			b := newFixture(t, ingesttest.Options{})
			b.cfg.OnSuccess, b.cfg.Recursive = after, true
			b.write("a.txt", "one")
			b.write("sub/a.txt", "two")
			b.write("bad\xff.txt", "a name that JSON cannot hold")
			b.run()
			b.run() // must find nothing to do
			b.check([]string{"a.txt", "a.txt", b.stack.Files()[2].Name}, 0, 0, 0, 0)
			_, err := os.Stat(filepath.Join(b.dir, "a.txt"))
			if (err == nil) != (after == spool.KeepSource) {
				t.Errorf("the source: %v", err)
			}
			if after == spool.MoveSource {
				if got := readAll(t, filepath.Join(b.dir, spool.StateDir, "done/sub/a.txt")); got != "two" {
					t.Errorf("moved %q", got)
				}
			}
		})
	}
}

// TestMoveKeepsNamesakes expects that a moved file gets another name if its name exists.
func TestMoveKeepsNamesakes(t *testing.T) {
	b := newFixture(t, ingesttest.Options{})
	b.cfg.OnSuccess = spool.MoveSource
	for _, content := range []string{"one", "two"} {
		b.write("a.txt", content)
		b.run()
	}
	found, err := filepath.Glob(filepath.Join(b.dir, spool.StateDir, "done/a.txt*"))
	b.must(err)
	if len(found) != 2 || readAll(t, found[0]) != "one" || readAll(t, found[1]) != "two" {
		t.Errorf("in done: %v", found)
	}
}

// TestKeepNoticesChanges expects that a kept file is sent again only if its content has
// changed.
func TestKeepNoticesChanges(t *testing.T) {
	b := newFixture(t, ingesttest.Options{})
	b.cfg.OnSuccess = spool.KeepSource
	path := b.write("a.txt", "one")
	b.run()
	b.must(os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour))) // touched
	b.run()
	b.must(os.Remove(path))
	b.write("a.txt", "one") // replaced by an equal one
	b.run()
	b.check([]string{"a.txt"}, 0, 0, 0, 0)
	b.must(os.Remove(path))
	b.write("a.txt", "two")
	b.run()
	b.check([]string{"a.txt", "a.txt"}, 0, 0, 0, 0)
}

// TestLeavesAloneWhatIsNoFile expects that only complete regular files are opened.
func TestLeavesAloneWhatIsNoFile(t *testing.T) {
	b := newFixture(t, ingesttest.Options{})
	b.write("sub/below.txt", "not asked for")
	for _, name := range []string{".hidden", "a.part", "b.tmp"} {
		b.write(name, "x")
	}
	b.must(syscall.Mkfifo(filepath.Join(b.dir, "fifo"), 0o600))
	b.must(os.Symlink("/etc/hostname", filepath.Join(b.dir, "link")))
	b.run()
	entries, err := os.ReadDir(b.dir)
	b.must(err)
	if len(entries) != 7 || len(b.stack.Files()) != 0 {
		t.Errorf("left %v, stored %v", entries, b.stack.Files())
	}
}

func TestSecondInstanceIsRefused(t *testing.T) {
	b := newFixture(t, ingesttest.Options{})
	s, stop := b.start()
	if _, err := spool.Open(b.cfg); !errors.Is(err, spool.ErrLocked) {
		t.Errorf("second Open: %v", err)
	}
	b.until("running", func() bool { return s.Ready() == nil })
	if !b.status().Running {
		t.Error("status does not see the daemon")
	}
	b.must(stop())
	if st := b.status(); st.Running || st.Last == nil || st.Last.State != "stopped" {
		t.Errorf("after the stop: %+v", st)
	}
}

func TestConfigIsChecked(t *testing.T) {
	b := newFixture(t, ingesttest.Options{})
	for name, change := range map[string]func(*spool.Config){
		"no dir":      func(c *spool.Config) { c.Dir = "" },
		"no uploader": func(c *spool.Config) { c.Uploader = nil },
		"after":       func(c *spool.Config) { c.OnSuccess = "burn" },
		"workers":     func(c *spool.Config) { c.Workers = -1 },
		"absent":      func(c *spool.Config) { c.Dir = filepath.Join(b.dir, "absent") },
		"a file":      func(c *spool.Config) { c.Dir = b.write("file", "") },
	} {
		cfg := b.cfg
		change(&cfg)
		if s, err := spool.Open(cfg); err == nil {
			t.Errorf("%s: accepted", name)
			_ = s.Close()
		}
	}
}

// TestRefusedFileIsPutAside expects that a refused file is quarantined and that the
// others are sent.
func TestRefusedFileIsPutAside(t *testing.T) {
	for _, after := range []spool.SourceAction{spool.DeleteSource, spool.KeepSource} {
		b := newFixture(t, ingesttest.Options{MaxFileSize: 10})
		b.cfg.OnSuccess = after
		b.write("big", strings.Repeat("x", 100<<10))
		b.write("small", "x")
		b.run()
		b.run()
		b.check([]string{"small"}, 0, 0, 1, 0)
		it := b.status().Failed[0]
		if it.Name != "big" || !strings.Contains(it.Error, "413") || it.Advice == "" || it.Attempts != 1 {
			t.Errorf("%s: %+v", after, it)
		}
	}
}

// TestLostAnswerIsLookedUp expects that a stored upload whose answer was lost is found
// by its id.
func TestLostAnswerIsLookedUp(t *testing.T) {
	b := newFixture(t, ingesttest.Options{})
	b.stack.SetFaults(t, ingesttest.Fault{Kind: "reset", AfterStore: true, Count: 1})
	b.write("a.txt", "one")
	b.run()
	b.check([]string{"a.txt"}, 0, 0, 0, 0)
	if got := b.kinds(); !slices.Equal(got, []string{"paused", "stored", "resumed"}) && !slices.Equal(got, []string{"paused", "resumed", "stored"}) {
		t.Errorf("events %v", got)
	}
}

// TestLostAnswerIsAmbiguous expects that such an upload is ambiguous if the element
// makes ids itself: it is listed, and repeated only on demand.
func TestLostAnswerIsAmbiguous(t *testing.T) {
	b := newFixture(t, ingesttest.Options{Dialect: "go"})
	b.stack.SetFaults(t, ingesttest.Fault{Kind: "reset", AfterStore: true, Count: 1})
	b.write("a.txt", "one")
	b.run()
	b.run()
	b.check([]string{"a.txt"}, 0, 0, 0, 1)
	if it := b.status().Ambiguous[0]; !strings.Contains(it.Advice, " ingest resolve "+b.dir+" "+it.ID+" --auto") {
		t.Errorf("%+v", it)
	}
	b.cfg.RetryAmbiguous = true
	b.run()
	b.check([]string{"a.txt", "a.txt"}, 0, 0, 0, 0)
}

// TestAmbiguousPauses expects that an element that never answers does not make the whole
// queue ambiguous.
func TestAmbiguousPauses(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	b := newFixture(t, ingesttest.Options{Dialect: "go"})
	for i := range 20 {
		b.write(fmt.Sprintf("%02d", i), "x")
	}
	b.cfg.Workers = 1
	b.cfg.Uploader = fakeUploader{say: func(string) error { return ingestclient.ErrAmbiguous }}
	b.run()
	b.check(nil, 17, 0, 0, 3)
}

// TestElementThatIgnoresIDs expects that the first receipt shows that an element ignores
// offered ids.
func TestElementThatIgnoresIDs(t *testing.T) {
	b := newFixture(t, ingesttest.Options{Dialect: "go"})
	b.cfg.Finder, b.cfg.Workers = b.client, 1
	b.write("a", "one")
	b.must(os.Chtimes(filepath.Join(b.dir, "a"), time.Time{}, time.Now().Add(-time.Hour)))
	var n atomic.Int32
	b.cfg.Uploader = fakeUploader{next: b.client, say: func(string) error {
		if n.Add(1) == 2 {
			return ingestclient.ErrAmbiguous
		}
		return nil
	}}
	b.write("b", "two")
	b.run()
	b.check([]string{"a"}, 0, 0, 0, 1)
}

// TestGateClosesForAll expects that a failure that is not the fault of a file stops all
// files, and that one file at a time is tried then.
func TestGateClosesForAll(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	for _, tt := range []struct {
		err    error
		reason string
		calls  int32
	}{
		{ingestclient.ErrConnection, "unreachable", 3},
		{ingestclient.ErrFull, "full", 3},
		{ingestclient.ErrMode, "mode", 3},
		{ingestclient.ErrNotFound, "element", 3},
		{&ingestclient.AuthError{Err: ingestclient.ErrCredentials}, "credentials", 1},
	} {
		t.Run(tt.err.Error(), func(t *testing.T) {
			t.Parallel()
			b := newFixture(t, ingesttest.Options{})
			for i := range 100 {
				b.write(fmt.Sprintf("%03d", i), "x")
			}
			var calls atomic.Int32
			b.cfg.Workers = 1
			b.cfg.Uploader = fakeUploader{say: func(string) error { calls.Add(1); return tt.err }}
			b.run()
			b.mu.Lock()
			defer b.mu.Unlock()
			if len(b.events) != 1 || b.events[0].Reason != tt.reason {
				t.Errorf("events %+v", b.events)
			}
			if calls.Load() != tt.calls {
				t.Errorf("%d attempts for 100 files, want %d", calls.Load(), tt.calls)
			}
			b.check(nil, 100, 0, 0, 0) // all given back: nothing was ever sent
		})
	}
}

// TestFileThatFailsAlone expects that a file that fails again and again while others are
// stored is quarantined.
func TestFileThatFailsAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	b := newFixture(t, ingesttest.Options{})
	b.cfg.Workers = 1
	var stored []int // what the element had at each attempt
	b.cfg.Uploader = fakeUploader{next: b.client, say: func(name string) error {
		if name == "poison" {
			stored = append(stored, len(b.stack.Files()))
			b.write(fmt.Sprintf("good%d", len(stored)), "x")
			return ingestclient.ErrServer
		}
		return nil
	}}
	b.write("poison", "x")
	b.run()
	if st := b.status(); len(st.Failed) != 1 || st.Failed[0].Name != "poison" {
		t.Errorf("%+v", st.Failed)
	}
	// The first of its attempts, from the fifth on, with three others stored meanwhile is the last.
	if last := max(5, 1+slices.IndexFunc(stored, func(n int) bool { return n >= 3 })); len(stored) != last {
		t.Errorf("%d attempts, want %d; stored at each: %v", len(stored), last, stored)
	}
}

// TestChangedFileGoesBack expects that a file that changes while it is read is returned,
// and sent when it does not change any more.
func TestChangedFileGoesBack(t *testing.T) {
	b := newFixture(t, ingesttest.Options{})
	var n atomic.Int32
	b.cfg.Uploader = fakeUploader{next: b.client, say: func(string) error {
		if n.Add(1) == 1 {
			return ingestclient.ErrFileChanged
		}
		return nil
	}}
	b.write("a", "one")
	b.run()
	b.check([]string{"a"}, 0, 0, 0, 0)
}

// TestStop expects that a stop lets uploads finish, cuts them after DrainTimeout, and
// loses no file.
func TestStop(t *testing.T) {
	t.Run("in time", func(t *testing.T) {
		b := newFixture(t, ingesttest.Options{})
		b.stack.SetFaults(t, ingesttest.Fault{Kind: "delay", Delay: time.Minute})
		s, stop := b.start()
		b.write("a", "one")
		b.until("uploading", func() bool { return s.Snapshot().Uploading == 1 })
		time.AfterFunc(300*time.Millisecond, func() { b.stack.SetFaults(t) }) // ends the delay; the stop waits for it
		b.must(stop())
		b.check([]string{"a"}, 0, 0, 0, 0)
	})
	t.Run("cut", func(t *testing.T) {
		b := newFixture(t, ingesttest.Options{})
		b.cfg.DrainTimeout, b.cfg.Workers = 50*time.Millisecond, 1
		b.stack.SetFaults(t, ingesttest.Fault{Kind: "stall", Delay: time.Minute})
		s, stop := b.start()
		for i := range 5 {
			b.write(fmt.Sprint(i), "content")
		}
		b.until("uploading", func() bool { return s.Snapshot().Uploading == 1 })
		b.must(stop())
		if st := b.status(); len(st.Waiting)+len(st.Claimed) != 5 || len(st.Claimed) > 1 {
			t.Errorf("waiting %d, claimed %d", len(st.Waiting), len(st.Claimed))
		}
		b.stack.SetFaults(t)
		b.run()
		b.check([]string{"0", "1", "2", "3", "4"}, 0, 0, 0, 0)
	})
}

// TestNoticesRenameAndClose expects that files are noticed by inotify, long before the
// next scan.
func TestNoticesRenameAndClose(t *testing.T) {
	b := newFixture(t, ingesttest.Options{})
	b.cfg.Rescan, b.cfg.Settle, b.cfg.OnClose, b.cfg.Recursive = time.Hour, time.Hour, true, true
	s, _ := b.start()
	b.until("scanned", func() bool { return s.Ready() == nil })
	part := b.write("a.part", "one")
	b.must(os.Rename(part, filepath.Join(b.dir, "a")))
	b.write("b", "two")
	b.until("stored", func() bool { return len(b.stack.Files()) == 2 })
}

// TestSettles expects that a file is not claimed while it is written to.
func TestSettles(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	b := newFixture(t, ingesttest.Options{})
	b.cfg.Settle = time.Second
	s, _ := b.start()
	content := ""
	var still time.Duration // the longest time for which it may have stood still
	first := time.Now()
	for last := first; time.Since(first) < 2*b.cfg.Settle; {
		content += "x"
		begun := time.Now()
		b.write("a", content)
		still, last = max(still, time.Since(last)), begun
		b.until("some looks", func() bool { return s.Snapshot().At.Sub(begun) > 5*b.cfg.Rescan })
	}
	b.until("stored", func() bool { return len(b.stack.Files()) > 0 })
	if f := b.stack.Files()[0]; int(f.Size) != len(content) && still < b.cfg.Settle {
		t.Errorf("stored after %d of %d writes, of which none was more than %s after the one before", f.Size, len(content), still)
	}
}
