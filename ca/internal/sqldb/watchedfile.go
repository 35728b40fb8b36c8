package sqldb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

// While a record is open its file can be removed, or its database can be put
// back to an older state. Then nothing more is committed: a certificate that is
// answered must be in the record that the next start opens.

// ErrRemoved reports that the file of the record is not at its place any more.
var ErrRemoved = errors.New("the file of the record was removed or replaced while it was in use")

// watchedFile is an SQLite file with its write-ahead log, as they were when they
// were opened. A process that has them open does not notice when they are
// removed: it goes on writing to files without a name, which are gone when it ends.
type watchedFile struct {
	path string
	main fs.FileInfo

	mu   sync.Mutex  // guards what follows
	wal  fs.FileInfo // of the connection that writes; nil before the first one
	lost bool        // the write-ahead log was removed: another one beside the open file would damage it
}

func watchFile(path string) (*watchedFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return &watchedFile{path: path, main: info}, nil
}

func (w *watchedFile) walPath() string { return w.path + "-wal" }

// opened is called when the connection that writes has begun its first
// transaction. From then on its write-ahead log has a name as long as it is open.
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

// closed is called before the connection that writes is closed: SQLite removes
// the write-ahead log with the last one.
func (w *watchedFile) closed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wal = nil
}

// check compares what the names are now. It costs two system calls.
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
