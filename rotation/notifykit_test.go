package rotation_test

import (
	"sync/atomic"

	"github.com/fsnotify/fsnotify"

	"github.com/artstore/artstore-pki/internal/filewatch"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
)

// fakeNotifier takes the place of the operating system in a file source.
type fakeNotifier struct {
	Wake chan struct{}
	Dirs chan []string
	fail atomic.Value // of every watch: watchAnswer
}

type watchAnswer struct{ err error }

// Fail has every later watch fail, or succeed again with nil.
func (f *fakeNotifier) Fail(err error) { f.fail.Store(watchAnswer{err}) }

func (f *fakeNotifier) SetDirs(dirs []string) error {
	select {
	case f.Dirs <- dirs:
	default:
	}
	a, _ := f.fail.Load().(watchAnswer)
	return a.err
}
func (f *fakeNotifier) Changes() <-chan struct{} { return f.Wake }
func (f *fakeNotifier) Close()                   {}

// filesNotified is files.Source with another notifier; open may fail.
func filesNotified(set files.Set, open func() (*fakeNotifier, error)) rotation.Source {
	return notifiedBy(set, func() (filewatch.Notifier, error) {
		n, err := open()
		if err != nil {
			return nil, err
		}
		return n, nil
	})
}

// filesWatched is files.Source that hands out each watcher of the operating system it opens.
func filesWatched(set files.Set, opened func(*fsnotify.Watcher)) rotation.Source {
	return notifiedBy(set, func() (filewatch.Notifier, error) {
		n, err := filewatch.New()
		if err != nil {
			return nil, err
		}
		opened(n.FS)
		return n, nil
	})
}

func notifiedBy(set files.Set, open func() (filewatch.Notifier, error)) rotation.Source {
	src := files.Source(set)
	src.(interface {
		SetNotifier(open func() (filewatch.Notifier, error))
	}).SetNotifier(open)
	return src
}
