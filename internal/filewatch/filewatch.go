// Package filewatch tells that something has changed in directories, by notifications of
// the operating system. It does not tell what has changed: the caller reads again.
package filewatch

import (
	"errors"
	"fmt"
	"io/fs"
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
}

// New starts a Watcher that watches nothing yet.
func New() (*Watcher, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("starting file notification: %w", err)
	}
	n := &Watcher{FS: w, wake: make(chan struct{}, 1), dirs: map[string]os.FileInfo{}}
	n.wg.Go(n.relay)
	return n, nil
}

// relay makes one value of any number of events. Errors count as events: after an overflow
// of the queue some events are lost, so the files must be read again.
func (n *Watcher) relay() {
	defer close(n.wake) // the watcher has ended, by Close or by itself
	for {
		select {
		case _, ok := <-n.FS.Events:
			if !ok {
				return
			}
		case _, ok := <-n.FS.Errors:
			if !ok {
				return
			}
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
	live := n.FS.WatchList()
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
			if os.SameFile(old, info) && slices.Contains(live, d) {
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

// Close implements [Notifier].
func (n *Watcher) Close() {
	_ = n.FS.Close() // stops the relay; nothing to do about an error
	n.wg.Wait()
}
