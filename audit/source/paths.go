package source

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
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

// resolveGeneration resolves a link into a swapped set, so that what is read beside it
// is of the same generation. Any other path stays as it is.
func resolveGeneration(path string) string {
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

// swappedDir reads a set whole, and again if it was swapped meanwhile: what it
// reports is of one generation.
func (w *walk) swappedDir(path string, at dirContext) (l listing) {
	var err error
	for range swapTries {
		if l, err = w.list(path); err != nil {
			w.fail(path, err)
			return listing{}
		}
		if w.ctx.Err() != nil || !l.torn() {
			break
		}
	}
	w.descend(&l)
	for _, f := range l.files {
		if f.hasKey() {
			at.keys.add(filepath.Base(f.path), func() *file { return f })
		}
	}
	w.do(func() (out []found) {
		for _, f := range l.files {
			out = append(out, w.subjects(f, at)...)
		}
		return out
	})
	return l
}

// listing is one directory: the files that may matter, and where to look next.
type listing struct {
	path          string
	files         []*file
	below         []fs.DirEntry // directories and links to them
	dirs          []string      // of those, where the walk goes
	left          map[string]string
	link, current string          // of a swapped set; "" if there is none
	reached       map[string]bool // names in current that a link beside it leads to
}

func (w *walk) list(path string) (l listing, err error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return l, err
	}
	l = listing{path: path, left: map[string]string{}, reached: map[string]bool{}}
	l.link, l.current = currentLink(path, entries)
	for _, e := range entries {
		full := filepath.Join(path, e.Name())
		from := full
		if l.link != "" && e.Type()&fs.ModeSymlink != 0 {
			// Resolved once for all: certificate and key are of one generation,
			// should the link be swapped meanwhile.
			if target, err := os.Readlink(full); err == nil && filepath.Dir(target) == l.link {
				from = filepath.Join(path, l.current, filepath.Base(target))
			}
		}
		through := from != full
		switch {
		case e.IsDir() || e.Type()&fs.ModeSymlink != 0 && isDir(from):
			l.below = append(l.below, e)
			continue
		case !w.pathFilter.matchesFile(w.root, full):
			l.left[full] = notWanted
			continue
		}
		f := w.read(from, false)
		switch {
		case f == nil:
			l.left[full] = otherKind
		case !vanished(f, full):
			f.path = full
			l.files = append(l.files, f)
		}
		if through {
			l.reached[filepath.Base(from)] = true
		}
	}
	return l, nil
}

// descend decides on the directories of a swapped set, and counts what is left out of it.
// What files beside it are reached in is not looked at again. Kubernetes and package
// enroll leave the generation before for a moment or for good: it holds what was
// replaced, which expires as it should.
func (w *walk) descend(l *listing) {
	for path, reason := range l.left {
		w.omit(path, reason)
	}
	for _, e := range l.below {
		full := filepath.Join(l.path, e.Name())
		switch {
		case e.IsDir() && e.Name() != l.current && l.replaced(e.Name()):
			w.omit(full, replacedSet)
		case w.goesDown(full, e):
			l.dirs = append(l.dirs, e.Name())
		}
	}
}

// generationName is what Kubernetes (a time, behind two dots) and package enroll
// call the directories that they swap.
var generationName = regexp.MustCompile(`^(\.\.[0-9]{4}_|gen-[0-9])[0-9_.]*$`)

// temporaryName is what package durable calls a file until it is complete.
var temporaryName = regexp.MustCompile(`^\.(.+)\.tmp[0-9A-Z]+$`)

// replaced reports whether a directory is an earlier generation of the set: it is called
// like the current one, and holds nothing but files of which links beside it show a
// later edition. A name alone hides nothing.
func (l *listing) replaced(dir string) bool {
	if !generationName.MatchString(dir) || !generationName.MatchString(l.current) {
		return false
	}
	entries, err := os.ReadDir(filepath.Join(l.path, dir))
	return err == nil && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		name := e.Name()
		if unfinished := temporaryName.FindStringSubmatch(name); unfinished != nil { // of a generation that is being written
			name = unfinished[1]
		}
		return !e.Type().IsRegular() || !l.reached[name]
	})
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

// currentLink finds the link through which files of a directory are reached, as those of
// Kubernetes ("..data") and package enroll ("current") are, and the directory beside it
// that it leads to. It goes by the links to files: they name the right one, also when a
// listing shows the next link under its temporary name, or misses the one that is
// being renamed.
func currentLink(path string, entries []fs.DirEntry) (link, target string) {
	for _, e := range entries {
		if e.Type()&fs.ModeSymlink == 0 {
			continue
		}
		to, err := os.Readlink(filepath.Join(path, e.Name()))
		if err != nil {
			continue
		}
		name, _, through := strings.Cut(to, "/")
		next, err := os.Readlink(filepath.Join(path, name))
		if through && err == nil && filepath.Base(next) == next {
			return name, next
		}
	}
	return "", ""
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

// dirContext is what a directory has for its certificates.
type dirContext struct {
	bundle []*cert.Certificate
	keys   keyring
	lists  []*cert.List
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
