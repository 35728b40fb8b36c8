package rotation_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
)

// TestWatcherTrouble expects that the files are read again after an overflow, and that a
// watcher that has ended is replaced. It uses the watcher of the operating system.
func TestWatcherTrouble(t *testing.T) {
	ca := newCA(t, "ca")
	dir := t.TempDir()
	f := write(t, dir, ca.leaf(t, "svc", nil))
	f.Poll = time.Hour
	watchers := make(chan *fsnotify.Watcher, 8)
	id := open(t, filesWatched(f, func(w *fsnotify.Watcher) { watchers <- w }), 0)
	w := <-watchers
	for _, d := range w.WatchList() {
		must(t, w.Remove(d))
	}
	m := ca.leaf(t, "svc", nil)
	write(t, dir, m)
	w.Errors <- fsnotify.ErrEventOverflow
	awaitSerial(t, id, m)
	if len(w.WatchList()) < 2 {
		t.Errorf("watches that were lost are not renewed: %v", w.WatchList())
	}

	must(t, w.Close())
	next := <-watchers
	waitFor(t, "watches", func() bool { return len(next.WatchList()) >= 2 })
	m = ca.leaf(t, "svc", nil)
	write(t, dir, m)
	awaitSerial(t, id, m)
	if st := id.Status(); st.WatchMode != "notify+poll" {
		t.Errorf("mode %q: %s", st.WatchMode, st.WatchError)
	}
}

// TestWatchRefused expects that a directory that cannot be watched is polled, and that
// Status says so until it can be watched again.
func TestWatchRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, "ca")
		dir := t.TempDir()
		f := write(t, dir, ca.leaf(t, "svc", nil))
		n := &fakeNotifier{}
		n.Fail(fs.ErrPermission)
		id := open(t, filesNotified(f, func() (*fakeNotifier, error) { return n, nil }), 0)
		defer func() { _ = id.Close() }()
		if st := id.Status(); st.WatchMode != "poll" || !strings.Contains(st.WatchError, "permission") {
			t.Errorf("mode %q: %s", st.WatchMode, st.WatchError)
		}
		n.Fail(errors.New("no space left"))
		m := ca.leaf(t, "svc", nil)
		write(t, dir, m)
		time.Sleep(31 * time.Second)
		if st := id.Status(); serial(id) != m.Certificate.Leaf.SerialNumber.String() || !strings.Contains(st.WatchError, "no space") {
			t.Errorf("polling: %+v", st)
		}
		n.Fail(nil)
		m = ca.leaf(t, "svc", nil)
		write(t, dir, m) // unheard of, but nothing could be heard
		time.Sleep(31 * time.Second)
		if st := id.Status(); serial(id) != m.Certificate.Leaf.SerialNumber.String() || st.WatchMode != "notify+poll" || st.WatchError != "" {
			t.Errorf("recovered: %+v", st)
		}
	})
}

// TestBusyDirectory expects that a set is read less often if other programs write to its
// directory all the time, and that a change is still found soon.
func TestBusyDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, "ca")
		dir := t.TempDir()
		n := &fakeNotifier{Wake: make(chan struct{}, 1), Dirs: make(chan []string, 4096)}
		id := open(t, filesNotified(write(t, dir, ca.leaf(t, "svc", nil)), func() (*fakeNotifier, error) { return n, nil }), 0)
		defer func() { _ = id.Close() }()
		busy := func(d time.Duration) {
			for range d / time.Millisecond {
				wake(n)
				time.Sleep(time.Millisecond)
			}
			synctest.Wait()
		}
		busy(2 * time.Second)
		if looks := len(n.Dirs); looks < 20 || looks > 40 {
			t.Errorf("%d looks in 2 s of other people's writes, want one each 80 ms", looks)
		}
		write(t, dir, ca.leaf(t, "svc", nil))
		busy(120 * time.Millisecond)
		if id.Current().Number() != 2 {
			t.Error("the change drowned in the noise")
		}
		time.Sleep(2 * time.Second)
		write(t, dir, ca.leaf(t, "svc", nil))
		wake(n)
		time.Sleep(31 * time.Millisecond)
		synctest.Wait()
		if id.Current().Number() != 3 {
			t.Error("after a rest a change is followed at once")
		}
	})
}

// TestDirectoryComesAndGoes expects that the nearest directory that exists is watched
// while the directory of the set does not exist.
func TestDirectoryComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, "ca")
		base, err := filepath.EvalSymlinks(t.TempDir())
		must(t, err)
		dir := filepath.Join(base, "a", "b", "tls")
		n := &fakeNotifier{Wake: make(chan struct{}, 1), Dirs: make(chan []string, 4096)}
		id := make(chan *rotation.Identity)
		go func() {
			id <- open(t, filesNotified(files.Set{Dir: dir}, func() (*fakeNotifier, error) { return n, nil }), 0)
		}()
		if dirs := <-n.Dirs; !contains(dirs, base) {
			t.Errorf("watched %v, want the nearest that exists, %s", dirs, base)
		}
		time.Sleep(time.Second)
		write(t, dir, ca.leaf(t, "svc", nil))
		wake(n)
		_ = (<-id).Close()
	})
}
