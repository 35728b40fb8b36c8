package audit

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// walk is one path. A file that is named must hold a certificate; in a
// directory, files without one are passed over. Links to files are followed,
// links to directories are not, so that no generation of a swapped set is seen
// twice. Rows come in the order of the walk: the files of a directory by name,
// then its directories by name.
type walk struct {
	*collection
	root  string
	found bool // whether there was anything so far; known to the goroutine that yields
}

// atOnce is how many files of a directory are one piece of work.
const atOnce = 32

// swapTries is how often a set is read that was swapped away under the reading.
// Two swaps must fall into one reading for that, so a second try does outside of tests.
const swapTries = 10

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
	w.do(func() []Subject { return []Subject{{Kind: kindFile, Place: path, Err: plain(err)}} })
}

// do has a piece of work done beside others, and its subjects yielded in turn.
func (w *walk) do(work func() []Subject) {
	w.pieces.do(w.files, func() []Subject {
		if w.ctx.Err() != nil {
			return nil
		}
		subjects := work()
		if len(subjects) > 0 {
			subjects[0].seen = &w.found
		}
		return subjects
	})
}

func (w *walk) start() {
	info, err := stat(w.root)
	switch {
	case err != nil:
		w.fail(w.root, err)
	case info.IsDir():
		w.dir(w.root, nil)
		w.do(func() []Subject {
			return []Subject{{later: func(yield func(Subject)) {
				if !w.found && w.ctx.Err() == nil {
					yield(Subject{Kind: kindFile, Place: w.root, Err: errors.New("there is no certificate in this directory")})
				}
			}}}
		})
	default:
		w.do(func() []Subject {
			f, among := w.named(w.root)
			at := place{w.bundleAt(filepath.Dir(w.root)), among}
			return []Subject{{later: func(yield func(Subject)) { w.each(f, at, yield) }}}
		})
	}
}

// named reads a file of the command line, and those that may hold its key.
func (w *walk) named(path string) (f *file, among keyring) {
	for range swapTries {
		from := generation(path)
		f = w.readUpTo(maxFile, from, true)
		among = w.siblings(from, path)
		if from == generation(path) {
			break
		}
	}
	if f.holds() == 0 && f.err() == nil {
		f.parts = []parsed{{err: errNoCert}}
	}
	f.path = path
	return f, among
}

// siblings are the files that may hold the key of one that was named alone.
func (w *walk) siblings(from, path string) keyring {
	out := keyring{}
	for _, name := range keyNames(from) {
		k := w.read(filepath.Join(filepath.Dir(from), name), false)
		if k == nil || k.err() != nil {
			continue
		}
		k.path = filepath.Join(filepath.Dir(path), name)
		out[name] = func() *file { return k }
	}
	return out
}

// generation resolves a link into a swapped set, so that what is read beside it
// is of the same generation. Any other path stays as it is.
func generation(path string) string {
	target, err := os.Readlink(path)
	if err != nil {
		return path
	}
	link, name := filepath.Split(target)
	current, err := os.Readlink(filepath.Join(filepath.Dir(path), link))
	if err != nil || link == "" || filepath.Base(current) != current {
		return path
	}
	return filepath.Join(filepath.Dir(path), current, name)
}

// dir reports the files of one directory, then its directories.
func (w *walk) dir(path string, bundle []*Certificate) {
	entries, err := os.ReadDir(path)
	if err != nil {
		w.fail(path, err)
		return
	}
	if own := w.bundleAt(path, entries...); own != nil {
		bundle = own
	}
	var dirs []string
	if link, _ := swapped(path, entries); link != "" {
		dirs = w.swappedDir(path, bundle)
	} else {
		dirs = w.plainDir(path, entries, bundle)
	}
	for _, d := range dirs {
		if w.ctx.Err() != nil {
			return
		}
		w.dir(filepath.Join(path, d), bundle)
	}
}

// plainDir has the files read in pieces. Keys are read once, for the certificates
// that they belong to and for themselves.
func (w *walk) plainDir(path string, entries []fs.DirEntry, bundle []*Certificate) (dirs []string) {
	var files []fs.DirEntry
	at := place{bundle, keyring{}}
	for _, e := range entries {
		full := filepath.Join(path, e.Name())
		switch {
		case e.IsDir():
			if w.wants.dir(w.root, full) {
				dirs = append(dirs, e.Name())
			}
			continue
		case !w.wants.file(w.root, full) || e.Type()&fs.ModeSymlink != 0 && isDir(full):
			continue
		case mayHoldKey(e.Name()):
			at.keys.add(e.Name(), func() *file { return w.entry(full, e) })
		}
		files = append(files, e)
	}
	for some := range slices.Chunk(files, atOnce) {
		w.do(func() (out []Subject) {
			for _, e := range some {
				out = append(out, w.one(filepath.Join(path, e.Name()), e, at)...)
			}
			return out
		})
	}
	return dirs
}

// one reports a file of a directory.
func (w *walk) one(path string, e fs.DirEntry, at place) []Subject {
	var f *file
	if key := at.keys[e.Name()]; key != nil {
		f = key()
	} else {
		f = w.entry(path, e)
	}
	if f == nil || vanished(f, path) {
		return nil
	}
	return w.report(f, at)
}

func (w *walk) entry(path string, e fs.DirEntry) *file {
	if e.Type().IsRegular() {
		return w.readEntry(path)
	}
	return w.read(path, false)
}

// swappedDir reads a set whole, and again if it was swapped meanwhile: what it
// reports is of one generation.
func (w *walk) swappedDir(path string, bundle []*Certificate) []string {
	var l listing
	var err error
	for range swapTries {
		if l, err = w.list(path); err != nil {
			w.fail(path, err)
			return nil
		}
		if w.ctx.Err() != nil || !l.torn() {
			break
		}
	}
	at := place{bundle, keyring{}}
	for _, f := range l.files {
		if len(f.keys()) > 0 {
			at.keys.add(filepath.Base(f.path), func() *file { return f })
		}
	}
	w.do(func() (out []Subject) {
		for _, f := range l.files {
			out = append(out, w.report(f, at)...)
		}
		return out
	})
	return l.dirs
}

// listing is one directory: the files that may matter, and where to look next.
type listing struct {
	path          string
	files         []*file
	dirs          []string
	link, current string // of a swapped set; "" if there is none
}

func (w *walk) list(path string) (l listing, err error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return l, err
	}
	l.path = path
	l.link, l.current = swapped(path, entries)
	through := false // a file is reached through the link
	for _, e := range entries {
		full := filepath.Join(path, e.Name())
		from := full
		if l.link != "" && e.Type()&fs.ModeSymlink != 0 {
			// Resolved once for all: certificate and key are of one generation,
			// should the link be swapped meanwhile.
			if target, err := os.Readlink(full); err == nil && filepath.Dir(target) == l.link {
				from, through = filepath.Join(path, l.current, filepath.Base(target)), true
			}
		}
		switch {
		case e.IsDir():
			l.dirs = append(l.dirs, e.Name())
		case !w.wants.file(w.root, full):
		case e.Type()&fs.ModeSymlink == 0 || !isDir(from):
			if f := w.read(from, false); f != nil && !vanished(f, full) {
				f.path = full
				l.files = append(l.files, f)
			}
		}
	}
	// Generations that are not current were replaced, and expire as they should.
	l.dirs = slices.DeleteFunc(l.dirs, func(d string) bool {
		replaced := l.current != "" && stem(d) == stem(l.current) && (through || d != l.current)
		return replaced || !w.wants.dir(w.root, filepath.Join(path, d))
	})
	return l, nil
}

// torn reports whether the set was swapped away under the reading.
func (l *listing) torn() bool {
	gone := slices.ContainsFunc(l.files, func(f *file) bool { return errors.Is(f.err(), fs.ErrNotExist) })
	if !gone || l.link == "" {
		return false
	}
	now, err := os.Readlink(filepath.Join(l.path, l.link))
	return err == nil && now != l.current
}

// swapped finds the link that makes one directory beside it the current one, as
// Kubernetes ("..data") and package enroll ("current") have it. Links to files
// go first: they name the right one, also when a listing shows the next link
// under its temporary name, or misses the one that is being renamed.
func swapped(path string, entries []fs.DirEntry) (link, target string) {
	for _, e := range entries {
		if e.Type()&fs.ModeSymlink == 0 {
			continue
		}
		to, err := os.Readlink(filepath.Join(path, e.Name()))
		if err != nil {
			continue
		}
		name, _, through := strings.Cut(to, "/")
		if !through && link == "" && isDir(filepath.Join(path, to)) {
			link, target = e.Name(), to
		}
		next, err := os.Readlink(filepath.Join(path, name))
		if through && err == nil && filepath.Base(next) == next {
			return name, next
		}
	}
	return link, target
}

// stem is a name without the number that tells generations apart.
func stem(name string) string { return strings.TrimRight(name, "0123456789_.-") }

// vanished reports whether a file went away since its directory was read, as
// the temporary names of those who replace files do. A broken link did not.
func vanished(f *file, path string) bool {
	if !errors.Is(f.err(), fs.ErrNotExist) {
		return false
	}
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// place is what a directory has for its certificates.
type place struct {
	bundle []*Certificate
	keys   keyring
}

// report makes subjects of what is in f.
func (w *walk) report(f *file, at place) (out []Subject) {
	if f.later != nil {
		return []Subject{{later: func(yield func(Subject)) {
			whole := f.later()
			if whole == nil {
				return
			}
			whole.path = f.path
			w.each(whole, at, yield)
		}}}
	}
	w.each(f, at, func(s Subject) { out = append(out, s) })
	return out
}

// bundleNames are what trust bundles are called, by us and by others.
var bundleNames = []string{"ca.crt", "ca.pem", "root_ca.crt"}

// bundleAt returns the roots in a directory that judge the chains in it and below
// it: those that were given, or the nearest that lie there. nil if there are none.
func (w *walk) bundleAt(dir string, entries ...fs.DirEntry) []*Certificate {
	if w.bundle != nil {
		return w.bundle
	}
	for _, name := range bundleNames {
		there := func(e fs.DirEntry) bool { return e.Name() == name }
		if len(entries) > 0 && !slices.ContainsFunc(entries, there) {
			continue
		}
		if f := w.readUpTo(maxFile, filepath.Join(dir, name), false); f != nil {
			if b := f.authorities(); b != nil {
				return b
			}
		}
	}
	return nil
}
