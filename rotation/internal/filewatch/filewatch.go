// Package filewatch tells that something has changed in directories, by the
// notifications of the operating system.
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

// Notifier tells of changes in directories. It is an interface because a test in a
// synctest bubble needs another one: the operating system's would stop the clock.
type Notifier interface {
	SetDirs(dirs []string) error // replaces what is watched
	// Changes has capacity 1; one value stands for any number of changes. It is
	// closed when notification ends by itself.
	Changes() <-chan struct{}
	Close() // joins
}

// Watcher is the Notifier of the operating system: one fsnotify watcher for all
// directories of a set. It watches directories and never files, because a watch on a
// file is lost with the file.
type Watcher struct {
	FS   *fsnotify.Watcher // for tests
	wake chan struct{}
	wg   sync.WaitGroup
	dirs map[string]os.FileInfo // what is watched; only the caller of SetDirs touches it
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

// relay condenses events. Errors count as events: an overflow means that
// something was missed, and reading again is the answer to that.
func (n *Watcher) relay() {
	defer close(n.wake) // the watcher ended, by close or by itself
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

// SetDirs implements [Notifier]. It follows exactly these directories. A path that now leads to another
// directory is added anew: the old watch followed the old directory away.
func (n *Watcher) SetDirs(dirs []string) error {
	var failed error
	keep := make(map[string]bool, len(dirs))
	// A directory made anew may get the inode of the old one, so the watcher is asked as well.
	live := n.FS.WatchList()
	for _, d := range dirs {
		keep[d] = true
		info, err := os.Stat(d)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) { // gone in this instant: its parent will tell
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
