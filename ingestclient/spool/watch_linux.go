package spool

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

const (
	watchMask  = syscall.IN_CLOSE_WRITE | syscall.IN_MOVED_TO | syscall.IN_CREATE
	watchQueue = 1024
)

// watcher tells which files were closed by their writer or moved in. fsnotify has no event
// for the close. A lost event costs only time, because scans find all files. A nil watcher
// watches nothing.
type watcher struct {
	events chan event
	file   *os.File

	mu   sync.Mutex
	dirs map[int32]string // by watch descriptor
}

// event says that the file at path may be complete; "" means that a scan is needed.
type event struct {
	path  string
	moved bool // it was renamed into the directory, so it is complete
}

func newWatcher() (*watcher, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	// Non-blocking, so that the runtime's poller waits and Close ends a Read.
	return &watcher{
		events: make(chan event, watchQueue), file: os.NewFile(uintptr(fd), "inotify"), dirs: map[int32]string{},
	}, nil
}

// add watches dir, once however often it is called. A directory that cannot be watched is only
// scanned.
func (w *watcher) add(dir string) {
	if w == nil {
		return
	}
	raw, err := w.file.SyscallConn()
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = raw.Control(func(fd uintptr) { // fails only when closed
		wd, err := syscall.InotifyAddWatch(int(fd), dir, watchMask|syscall.IN_ONLYDIR)
		if err == nil {
			w.dirs[int32(wd)] = dir //nolint:gosec // G115: the kernel's own type is int
		}
	})
}

// run reads events until Close.
func (w *watcher) run() {
	buf := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			return
		}
		w.parse(buf[:n])
	}
}

// parse splits what the kernel wrote into events (inotify(7)).
func (w *watcher) parse(b []byte) {
	for len(b) >= syscall.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(b)) //nolint:gosec // G115: as the kernel wrote it
		mask := binary.NativeEndian.Uint32(b[4:])
		size := int(binary.NativeEndian.Uint32(b[12:]))
		b = b[syscall.SizeofInotifyEvent:]
		if size > len(b) {
			return
		}
		name := strings.TrimRight(string(b[:size]), "\x00")
		b = b[size:]
		w.notify(wd, mask, name)
	}
}

func (w *watcher) notify(wd int32, mask uint32, name string) {
	w.mu.Lock()
	dir := w.dirs[wd]
	if mask&syscall.IN_IGNORED != 0 {
		delete(w.dirs, wd)
	}
	w.mu.Unlock()
	e := event{path: filepath.Join(dir, name), moved: mask&syscall.IN_MOVED_TO != 0}
	switch {
	case mask&syscall.IN_Q_OVERFLOW != 0, mask&syscall.IN_ISDIR != 0:
		e = event{}
	case name == "" || mask&(syscall.IN_CLOSE_WRITE|syscall.IN_MOVED_TO) == 0:
		return
	}
	select {
	case w.events <- e:
	default: // the next scan finds it
	}
}

// changes returns the channel of events. That of a nil watcher is nil and never delivers.
func (w *watcher) changes() <-chan event {
	if w == nil {
		return nil
	}
	return w.events
}

func (w *watcher) Close() {
	if w != nil {
		_ = w.file.Close() // nothing was written
	}
}
