package source

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/format"
)

// walk is one path. A file that is named must hold a certificate; in a
// directory, files without one are passed over. Links to files are followed, and
// links to directories as [trees] says. Rows come in the order of the walk: the
// files of a directory by name, then its directories by name. What a walk leaves
// out is counted; see [omissions].
type walk struct {
	*collection
	root  string
	found bool // whether there was anything so far; known to the goroutine that yields
}

// stat is os.Stat for a path that may lead through a link which is being swapped.
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

func (w *walk) fail(path string, err error) {
	w.do(func() []found { return []found{{Subject: audit.Subject{Place: path, Err: withoutPath(err)}}} })
}

// do has a piece of work done beside others, and its subjects yielded in turn.
func (w *walk) do(work func() []found) {
	w.pieces.Do(w.files, func() batch {
		if w.ctx.Err() != nil {
			return batch{}
		}
		return batch{work(), &w.found}
	})
}

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

// named reads a file of the command line, and those that may hold its key.
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

// siblings are the files that may hold the key of one that was named alone.
func (w *walk) siblings(from, path string) keyring {
	out := keyring{}
	for _, name := range keyNames(from) {
		k := w.read(filepath.Join(filepath.Dir(from), name), false)
		if k == nil || errors.Is(k.err(), fs.ErrNotExist) || errors.Is(k.err(), fs.ErrPermission) {
			continue // a key that only its owner may read is as it should be
		}
		k.path = filepath.Join(filepath.Dir(path), name)
		out[name] = func() *file { return k }
	}
	return out
}

// beside reports what cannot be used in a file beside f that was named alone: its trust
// bundle, or one that may hold its key.
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

// vanished reports whether a file went away since its directory was read, as
// the temporary names of those who replace files do. A broken link did not.
func vanished(f *file, path string) bool {
	return errors.Is(f.err(), fs.ErrNotExist) && isGone(path)
}

func isGone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// subjects makes subjects of what is in f.
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
