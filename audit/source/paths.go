package source

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/format"
)

// walk is the walk of one path. A named file must hold a certificate; in a directory, files
// without one are left out. Links to files are followed, and links to directories as
// [trees] says. Subjects come in the order of the walk: the files of a directory by name,
// then its directories by name. Paths that are left out on purpose are counted.
type walk struct {
	*collection
	root  string
	found bool // a subject was yielded; is used by the goroutine that yields only
}

// stat is os.Stat for a path that may lead through a link that is swapped at the moment.
func stat(path string) (info fs.FileInfo, err error) {
	for range swapTries {
		if info, err = os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		if _, gone := os.Lstat(path); gone != nil {
			break
		}
	}
	return info, err
}

// fail yields a path with an error, in its turn.
func (w *walk) fail(path string, err error) {
	w.do(func() []found { return []found{{Subject: audit.Subject{Place: path, Err: withoutPath(err)}}} })
}

// do starts a piece of work. It runs in parallel with others, and its subjects are yielded in
// its turn.
func (w *walk) do(work func() []found) {
	w.pieces.Do(w.files, func() batch {
		if w.ctx.Err() != nil {
			return batch{}
		}
		return batch{work(), &w.found}
	})
}

// start starts the work on the path. It returns when all directories were read.
func (w *walk) start() {
	info, err := stat(w.root)
	switch {
	case err != nil:
		w.fail(w.root, err)
	case info.IsDir():
		w.dir(w.root, dirContext{}, nil)
		w.do(func() []found {
			return []found{{later: func(yield func(audit.Subject)) {
				if !w.found && w.ctx.Err() == nil {
					yield(audit.Subject{Place: w.root, Err: errors.New("there is no certificate in this directory")})
				}
			}}}
		})
	default:
		w.do(func() []found {
			f, among := w.named(w.root)
			beside := among.files()
			at := dirContext{bundle: w.bundle, keys: among}
			if w.bundle == nil {
				trusted := w.bundleFile(filepath.Dir(w.root))
				at.bundle = trusted.trusted()
				beside = append(beside, trusted)
			}
			return []found{{later: func(yield func(audit.Subject)) {
				w.eachSubject(f, at, yield)
				for _, b := range beside {
					w.beside(f, b, yield)
				}
			}}}
		})
	}
}

// named reads a file that was named, and the files that may hold its key. It reads them again
// if their generation was swapped meanwhile.
func (w *walk) named(path string) (f *file, among keyring) {
	for range swapTries {
		from := resolveGeneration(path)
		f = w.readUpTo(maxFile, from, true)
		among = w.siblings(from, path)
		if from == resolveGeneration(path) {
			break
		}
	}
	if f.holds() == 0 && f.err() == nil && !f.hasKey() {
		f.parts = []format.Part{{Err: format.ErrNoCert}}
	}
	f.path, f.named = path, true
	return f, among
}

// siblings returns the files that may hold the key of a file that was named itself. from is
// the path of that file in its generation.
func (w *walk) siblings(from, path string) keyring {
	out := keyring{}
	for _, name := range keyNames(from) {
		k := w.read(filepath.Join(filepath.Dir(from), name), false)
		if k == nil || errors.Is(k.err(), fs.ErrNotExist) || errors.Is(k.err(), fs.ErrPermission) {
			continue // a key that this account may not read is well protected
		}
		k.path = filepath.Join(filepath.Dir(path), name)
		out[name] = func() *file { return k }
	}
	return out
}

// beside yields the faults of a file beside f, which was named itself: its trust bundle, or a
// file that may hold its key. Sound parts of b are not yielded.
func (w *walk) beside(f, b *file, yield func(audit.Subject)) {
	if b == nil || b.path == f.path {
		return
	}
	w.eachSubject(b, dirContext{}, func(s audit.Subject) {
		if s.Err != nil || s.Oddity != nil {
			yield(s)
		}
	})
}

// vanished reports whether a file was removed since its directory was read, as temporary
// files are. A broken link is not removed.
func vanished(f *file, path string) bool {
	return errors.Is(f.err(), fs.ErrNotExist) && isGone(path)
}

// isGone reports whether there is nothing under a path, not even a broken link.
func isGone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// isDir reports whether a path is a directory or a link to one.
func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// subjects returns the subjects of a file. A deferred file is read when it is its turn.
func (w *walk) subjects(f *file, at dirContext) (out []found) {
	if f.deferred != nil {
		return []found{{later: func(yield func(audit.Subject)) {
			whole := f.deferred()
			if whole == nil {
				return
			}
			whole.path, whole.named = f.path, f.named
			w.eachSubject(whole, at, yield)
		}}}
	}
	w.eachSubject(f, at, func(s audit.Subject) { out = append(out, found{Subject: s}) })
	return out
}
