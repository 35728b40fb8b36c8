package rotation

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// fsNotifier is one fsnotify watcher for all directories of a set. Directories
// and never files: a watch on a file is lost with the file.
type fsNotifier struct {
	w    *fsnotify.Watcher
	wake chan struct{}
	wg   sync.WaitGroup
	dirs map[string]os.FileInfo // what is watched; only the caller of watch touches it
}

func newFSNotifier() (notifier, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("starting file notification: %w", err)
	}
	n := &fsNotifier{w: w, wake: make(chan struct{}, 1), dirs: map[string]os.FileInfo{}}
	n.wg.Go(n.relay)
	return n, nil
}

// relay condenses events. Errors count as events: an overflow means that
// something was missed, and reading again is the answer to that.
func (n *fsNotifier) relay() {
	defer close(n.wake) // the watcher ended, by close or by itself
	for {
		select {
		case _, ok := <-n.w.Events:
			if !ok {
				return
			}
		case _, ok := <-n.w.Errors:
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

func (n *fsNotifier) changes() <-chan struct{} { return n.wake }

// watch follows exactly these directories. A path that now leads to another
// directory is added anew: the old watch followed the old directory away.
func (n *fsNotifier) watch(dirs []string) error {
	var failed error
	keep := make(map[string]bool, len(dirs))
	// A directory made anew may get the inode of the old one, so the watcher is asked as well.
	live := n.w.WatchList()
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
			_ = n.w.Remove(d) // may have gone with its directory
		}
		if err := n.w.Add(d); err != nil {
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
			_ = n.w.Remove(d) // may have gone with its directory
			delete(n.dirs, d)
		}
	}
	return failed
}

func (n *fsNotifier) close() {
	_ = n.w.Close() // stops the relay; nothing to do about an error
	n.wg.Wait()
}
