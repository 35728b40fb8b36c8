package source

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/artstore/artstore-pki/audit/cert"
)

// atOnce is how many files of a directory are one piece of work.
const atOnce = 32

// dir reports the files of one directory, then its directories. Entries in seen
// were reported under another name.
func (w *walk) dir(path string, above dirContext, seen map[string]bool) {
	entries, err := os.ReadDir(path)
	switch {
	case err != nil && isGone(path):
		return // as those of who replace sets do
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

// plainDir has the files read in pieces. Keys are read once, for the certificates
// that they belong to and for themselves.
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

// readEntrySubjects reports a file of a directory.
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

func (w *walk) entry(path string, e fs.DirEntry) *file {
	if e.Type().IsRegular() {
		return w.readEntry(path)
	}
	return w.read(path, false)
}

// dirContext is what a directory has for its certificates.
type dirContext struct {
	bundle []*cert.Certificate
	keys   keyring
	lists  []*cert.List
}

// bundleNames are what trust bundles are called, by us and by others.
var bundleNames = []string{"ca.crt", "ca.pem", "root_ca.crt"}

// bundleAt returns the roots in a directory that judge the chains in it and below
// it: those that were given, or the nearest that lie there. nil if there is no bundle;
// one without a root is empty, and no chain leads to it.
func (w *walk) bundleAt(dir string, entries ...fs.DirEntry) []*cert.Certificate {
	if w.bundle != nil {
		return w.bundle
	}
	return w.bundleFile(dir, entries...).trusted()
}

// bundleFile reads the trust bundle of a directory, or returns nil. The entries save a
// look at what is not there.
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

// trusted are the roots of a trust bundle; nil if f is.
func (f *file) trusted() []*cert.Certificate {
	if f == nil {
		return nil
	}
	return append([]*cert.Certificate{}, f.roots()...) // no chain leads to a bundle without a root
}
