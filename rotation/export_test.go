package rotation

import (
	"crypto/tls"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

// ServerAt asks a server for its configuration as of a time.
func ServerAt(s *Server) func(time.Time) (*tls.Config, error) { return s.config }

// TicketKeys derives the keys of a fresh secret for each pair of day and scope.
func TicketKeys() func(day time.Time, scope ...string) [][32]byte {
	s := newTicketSecret()
	return func(day time.Time, scope ...string) [][32]byte {
		k, err := s.keys(day, scope)
		if err != nil {
			panic(err)
		}
		return k
	}
}

// Conns counts the connections that all generations of t own.
func Conns(t *Transport) int {
	sum := 0
	for _, n := range t.id.tenures() {
		n.mu.Lock()
		p := n.pools[t]
		n.mu.Unlock()
		if p != nil {
			p.mu.Lock()
			sum += len(p.conns)
			p.mu.Unlock()
		}
	}
	return sum
}

// FakeNotifier stands for the operating system in a file source.
type FakeNotifier struct {
	Wake chan struct{}
	Dirs chan []string
	fail atomic.Value // of every watch: watchAnswer
}

type watchAnswer struct{ err error }

// Fail has every later watch fail, or succeed again with nil.
func (f *FakeNotifier) Fail(err error) { f.fail.Store(watchAnswer{err}) }

func (f *FakeNotifier) watch(dirs []string) error {
	select {
	case f.Dirs <- dirs:
	default:
	}
	a, _ := f.fail.Load().(watchAnswer)
	return a.err
}
func (f *FakeNotifier) changes() <-chan struct{} { return f.Wake }
func (f *FakeNotifier) close()                   {}

// FilesNotified is Files with another notifier; open may fail.
func FilesNotified(set FileSet, open func() (*FakeNotifier, error)) Source {
	return &files{set: set, notify: func() (notifier, error) {
		n, err := open()
		if err != nil {
			return nil, err
		}
		return n, nil
	}}
}

// FilesWatched is Files that hands out each watcher of the operating system it opens.
func FilesWatched(set FileSet, opened func(*fsnotify.Watcher)) Source {
	return &files{set: set, notify: func() (notifier, error) {
		n, err := newFSNotifier()
		if err == nil {
			opened(n.(*fsNotifier).w)
		}
		return n, err
	}}
}

// ReadSet reads a set once; between comes after the links are resolved.
func ReadSet(set FileSet, between func()) (Material, error) {
	p, err := set.plan()
	if err != nil {
		return Material{}, err
	}
	paths, failed, err := newResolver().all(p)
	if err != nil {
		return Material{}, err
	}
	between()
	r, err := load(p, paths, failed)
	if err != nil {
		return Material{}, err
	}
	return r.material(p)
}

// Examine is the gate at the start, when no generation is in effect.
func Examine(m Material) (*Generation, error) { return examine(m, nil, nil, 0) }

// OpenConns counts the connections that s looks after.
func OpenConns(s *Server) int { return len(s.served.all()) }

// Rests reports that s will not look at its connections for hours.
func Rests(s *Server) bool {
	s.served.mu.Lock()
	defer s.served.mu.Unlock()
	return time.Until(s.served.next) > time.Hour
}
