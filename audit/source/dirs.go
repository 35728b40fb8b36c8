package source

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/artstore/artstore-pki/audit/cert"
)

// atOnce is the number of files in one piece of work.
const atOnce = 32

// dir walks one directory: its files, then its directories. Entries in seen were yielded
// under the name of a link already.
func (w *walk) dir(path string, above dirContext, seen map[string]bool) {
	entries, err := os.ReadDir(path)
	switch {
	case err != nil && isGone(path):
		return // it was a generation that has been replaced
	case err != nil:
		w.fail(path, err)
		return
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return seen[e.Name()] })
	at := dirContext{above.bundle, keyring{}, slices.Concat(above.lists, w.listsAt(path, entries))}
	if own := w.bundleAt(path, entries...); own != nil {
		at.bundle = own
	}
	var l listing
	if link, _ := currentLink(path, entries); link != "" {
		l = w.swappedDir(path, at)
	} else {
		l.dirs = w.plainDir(path, entries, at)
	}
	for _, d := range l.dirs {
		if w.ctx.Err() != nil {
			return
		}
		var reached map[string]bool
		if d == l.current {
			reached = l.reached
		}
		w.dir(filepath.Join(path, d), at, reached)
	}
}

// plainDir starts the work on the files of a directory, and returns the directories to walk.
// A file that may hold a key is read once, for its certificate and for itself.
func (w *walk) plainDir(path string, entries []fs.DirEntry, at dirContext) (dirs []string) {
	var files []fs.DirEntry
	for _, e := range entries {
		full := filepath.Join(path, e.Name())
		switch {
		case e.IsDir() || e.Type()&fs.ModeSymlink != 0 && isDir(full):
			if w.goesDown(full, e) {
				dirs = append(dirs, e.Name())
			}
			continue
		case !w.pathFilter.matchesFile(w.root, full):
			w.omit(full, notWanted)
			continue
		case mayHoldKey(e.Name()):
			at.keys.add(e.Name(), func() *file { return w.entry(full, e) })
		}
		files = append(files, e)
	}
	for some := range slices.Chunk(files, atOnce) {
		w.do(func() []found {
			out := make([]found, 0, len(some)) // one each, as a rule
			for _, e := range some {
				out = append(out, w.readEntrySubjects(filepath.Join(path, e.Name()), e, at)...)
			}
			return out
		})
	}
	return dirs
}

// goesDown reports whether the walk goes into a directory, or a link to one.
func (w *walk) goesDown(path string, e fs.DirEntry) bool {
	if !w.pathFilter.matchesDir(w.root, path) {
		w.omit(path, notWanted)
		return false
	}
	if e.Type()&fs.ModeSymlink == 0 {
		return true
	}
	reason := w.trees.enter(path)
	if reason != "" {
		w.omit(path, reason)
	}
	return reason == ""
}

// readEntrySubjects reads a file of a directory and returns its subjects.
func (w *walk) readEntrySubjects(path string, e fs.DirEntry, at dirContext) []found {
	var f *file
	if key := at.keys[e.Name()]; key != nil {
		f = key()
	} else {
		f = w.entry(path, e)
	}
	switch {
	case f == nil:
		w.omit(path, otherKind)
		return nil
	case vanished(f, path):
		return nil
	}
	return w.subjects(f, at)
}

// entry reads a file of a directory. It returns nil for a file of another kind.
func (w *walk) entry(path string, e fs.DirEntry) *file {
	if e.Type().IsRegular() {
		return w.readEntry(path)
	}
	return w.read(path, false)
}

// dirContext has what the certificates of a directory are judged with.
type dirContext struct {
	bundle []*cert.Certificate // nil if there is none
	keys   keyring
	lists  []*cert.List // of the directory and of those above it
}

// bundleNames are usual names of trust bundles.
var bundleNames = []string{"ca.crt", "ca.pem", "root_ca.crt"}

// bundleAt returns the roots that judge the chains in a directory and below it: those that
// were given, or those in the directory. It returns nil if there is no bundle. A bundle
// without a root is empty and not nil, and no chain leads to it.
func (w *walk) bundleAt(dir string, entries ...fs.DirEntry) []*cert.Certificate {
	if w.bundle != nil {
		return w.bundle
	}
	return w.bundleFile(dir, entries...).trusted()
}

// bundleFile reads the trust bundle of a directory, or returns nil. If the entries of the
// directory are given, other names are not tried.
func (w *walk) bundleFile(dir string, entries ...fs.DirEntry) *file {
	for _, name := range bundleNames {
		there := func(e fs.DirEntry) bool { return e.Name() == name }
		if len(entries) > 0 && !slices.ContainsFunc(entries, there) {
			continue
		}
		if f := w.readUpTo(maxFile, filepath.Join(dir, name), false); f != nil && !errors.Is(f.err(), fs.ErrNotExist) {
			return f
		}
	}
	return nil
}

// trusted returns the roots of a trust bundle. It returns nil only if f is nil.
func (f *file) trusted() []*cert.Certificate {
	if f == nil {
		return nil
	}
	return append([]*cert.Certificate{}, f.roots()...) // never nil, see bundleAt
}
