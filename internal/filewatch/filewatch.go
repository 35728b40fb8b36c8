// Package filewatch tells that something has changed in directories, by notifications of
// the operating system. Unless it is asked for names, it does not tell what has changed: the
// caller reads again.
package filewatch

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// Notifier tells of changes in directories. It is an interface because tests in a synctest
// bubble need another one: the clock of a bubble does not advance while a goroutine waits
// for the operating system.
type Notifier interface {
	SetDirs(dirs []string) error // replaces the directories that are watched
	// Changes has capacity 1, and one value stands for any number of changes. It is
	// closed when notification ends by itself.
	Changes() <-chan struct{}
	Close() // waits for the goroutine of the Notifier
}

// Watcher is the Notifier of the operating system: one fsnotify watcher for all
// directories of a set. It watches directories and never files, because a watch on a
// file is lost with the file.
type Watcher struct {
	FS   *fsnotify.Watcher // for tests
	wake chan struct{}
	wg   sync.WaitGroup
	dirs map[string]os.FileInfo // that are watched; used by SetDirs only

	mu    sync.Mutex
	most  int             // names that are remembered; 0 for none
	names map[string]bool // that have changed since Take
	lost  bool            // there were more
}

// New starts a Watcher that watches nothing yet.
func New() (*Watcher, error) {
	n, err := newWatcher()
	if err != nil {
		return nil, err
	}
	n.wg.Go(n.relay)
	return n, nil
}

func newWatcher() (*Watcher, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("starting file notification: %w", err)
	}
	return &Watcher{FS: w, wake: make(chan struct{}, 1), dirs: map[string]os.FileInfo{}}, nil
}

// NewNamed starts a Watcher that also remembers the paths that have changed, most of them at a
// time.
func NewNamed(most int) (*Watcher, error) {
	n, err := newWatcher()
	if err != nil {
		return nil, err
	}
	n.most, n.names = most, map[string]bool{}
	n.wg.Go(n.relay)
	return n, nil
}

// Take returns the paths that have changed since the last call, in no order. lost says that there
// were more, so that all files must be looked at.
func (n *Watcher) Take() (names []string, lost bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	names, lost = slices.Collect(maps.Keys(n.names)), n.lost
	clear(n.names)
	n.lost = false
	return names, lost
}

// note remembers a path; "" stands for one that is not known.
func (n *Watcher) note(path string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if path == "" || len(n.names) >= n.most {
		n.lost = n.most > 0
		return
	}
	n.names[path] = true
}

// relay makes one value of any number of events. Errors count as events: after an overflow
// of the queue some events are lost, so the files must be read again.
func (n *Watcher) relay() {
	defer close(n.wake) // the watcher has ended, by Close or by itself
	for {
		select {
		case e, ok := <-n.FS.Events:
			if !ok {
				return
			}
			n.note(e.Name)
		case _, ok := <-n.FS.Errors:
			if !ok {
				return
			}
			n.note("")
		}
		select {
		case n.wake <- struct{}{}:
		default:
		}
	}
}

// Changes implements [Notifier].
func (n *Watcher) Changes() <-chan struct{} { return n.wake }

// SetDirs implements [Notifier]. If a path leads to another directory now, it is added
// again, because the old watch belongs to the old directory. A directory that does not
// exist is no error: the watch on its parent tells when it appears.
func (n *Watcher) SetDirs(dirs []string) error {
	var failed error
	keep := make(map[string]bool, len(dirs))
	// A new directory may have the inode of the removed one, so the list of the watcher is
	// needed too.
	live := map[string]bool{}
	for _, d := range n.FS.WatchList() {
		live[d] = true
	}
	for _, d := range dirs {
		keep[d] = true
		info, err := os.Stat(d)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				failed = fmt.Errorf("watching directory: %w", err)
			}
			continue
		}
		if old := n.dirs[d]; old != nil {
			if os.SameFile(old, info) && live[d] {
				continue
			}
			_ = n.FS.Remove(d) // may have gone with its directory
		}
		if err := n.FS.Add(d); err != nil {
			delete(n.dirs, d)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			failed = fmt.Errorf("watching directory %s: %w", d, err)
			continue
		}
		n.dirs[d] = info
	}
	for d := range n.dirs {
		if !keep[d] {
			_ = n.FS.Remove(d) // may have gone with its directory
			delete(n.dirs, d)
		}
	}
	return failed
}

// Watched returns how many directories are watched.
func (n *Watcher) Watched() int { return len(n.FS.WatchList()) }

// Close implements [Notifier].
func (n *Watcher) Close() {
	_ = n.FS.Close() // stops the relay; nothing to do about an error
	n.wg.Wait()
}
