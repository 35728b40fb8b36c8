package sqldb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

// ErrRemoved reports that the file of the record is not at its place any more. Nothing is
// committed then: a certificate that was handed out must be in the record that the next
// start of the authority opens.
var ErrRemoved = errors.New("the file of the record was removed or replaced while it was in use")

// watchedFile remembers which SQLite file and which WAL were opened. A process does not
// notice when open files are removed: it goes on writing to files without a name, which are
// deleted when it ends.
type watchedFile struct {
	path string
	main fs.FileInfo

	mu   sync.Mutex  // guards wal and lost
	wal  fs.FileInfo // WAL of the connection that writes; nil while there is none
	lost bool        // the WAL was removed; it stays true, because a new WAL beside the old file would damage it
}

func watchFile(path string) (*watchedFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return &watchedFile{path: path, main: info}, nil
}

func (w *watchedFile) walPath() string { return w.path + "-wal" }

// opened is called when the connection that writes has begun its first transaction. SQLite
// has made the WAL by then, and keeps it until the connection is closed.
func (w *watchedFile) opened() error {
	info, err := os.Stat(w.walPath())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRemoved, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wal = info
	return nil
}

// closed is called before the connection that writes is closed, because SQLite deletes the
// WAL when the last connection is closed.
func (w *watchedFile) closed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wal = nil
}

// check returns [ErrRemoved] if another file, or none, has the name of the file or of the
// WAL. It costs two system calls.
func (w *watchedFile) check() error {
	if info, err := os.Stat(w.path); err != nil || !os.SameFile(info, w.main) {
		return fmt.Errorf("%w: %s", ErrRemoved, w.path)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wal != nil {
		info, err := os.Stat(w.walPath())
		w.lost = w.lost || err != nil || !os.SameFile(info, w.wal)
	}
	if w.lost {
		return fmt.Errorf("%w: %s", ErrRemoved, w.walPath())
	}
	return nil
}
