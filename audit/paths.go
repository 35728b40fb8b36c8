package audit

import (
	"context"
	"crypto/x509"
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
// twice.
type walk struct {
	ctx     context.Context //nolint:containedctx // the walk is one call, cut into methods
	yield   func(Subject)
	bundle  []*x509.Certificate
	root    string
	bundles map[string][]*x509.Certificate // by directory; nil for one without
}

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
	w.yield(Subject{Kind: kindFile, Place: path, Err: plain(err)})
}

func (w *walk) start() {
	info, err := stat(w.root)
	switch {
	case err != nil:
		w.fail(w.root, err)
	case info.IsDir():
		if found := w.dir(w.root); !found && w.ctx.Err() == nil {
			w.fail(w.root, errors.New("there is no certificate in this directory"))
		}
	default:
		f, among := named(w.root)
		w.root = filepath.Dir(w.root)
		w.report(f, withKeys(among))
	}
}

// named reads a file of the command line, and those that may hold its key.
func named(path string) (f *file, among []*file) {
	for range swapTries {
		from := generation(path)
		f = read(from, true)
		among = append(siblings(from), f)
		if from == generation(path) {
			break
		}
	}
	if f.certs() == 0 && f.err() == nil {
		f.parts = []parsed{{err: errNoCert}}
	}
	for _, k := range among {
		k.path = filepath.Join(filepath.Dir(path), filepath.Base(k.path))
	}
	return f, among
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

// dir reports the files of one directory, then its directories. It tells
// whether there was anything to report.
func (w *walk) dir(path string) (found bool) {
	var l listing
	var err error
	for range swapTries {
		if l, err = list(path); err != nil {
			w.fail(path, err)
			return true
		}
		if w.ctx.Err() != nil || !l.torn() {
			break
		}
	}
	among := withKeys(l.files)
	for _, f := range l.files {
		found = w.report(f, among) || found
	}
	for _, d := range l.dirs {
		if w.ctx.Err() != nil {
			return true
		}
		found = w.dir(filepath.Join(path, d)) || found
	}
	return found
}

// listing is one directory: the files that may matter, and where to look next.
type listing struct {
	path          string
	files         []*file
	dirs          []string
	link, current string // of a swapped set; "" if there is none
}

func list(path string) (l listing, err error) {
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
		case e.Type()&fs.ModeSymlink == 0 || !isDir(from):
			if f := read(from, false); f != nil && !vanished(f, full) {
				f.path = full
				l.files = append(l.files, f)
			}
		}
	}
	if l.current != "" {
		// Generations that are not current were replaced, and expire as they should.
		l.dirs = slices.DeleteFunc(l.dirs, func(d string) bool { return stem(d) == stem(l.current) && (through || d != l.current) })
	}
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

// report yields what is in f; among are the keys of its directory. It tells
// whether there was anything.
func (w *walk) report(f *file, among keyFiles) (found bool) {
	chain, order := f.authorities(), f.order()
	for _, p := range f.parts {
		s := Subject{Kind: kindFile, Place: f.path, Err: p.err, Cert: p.cert}
		if len(f.parts) > 1 {
			s.Block = p.block
		}
		switch {
		case p.err != nil:
		case p.cert == nil:
			continue // a key is judged with its certificate
		case !p.cert.IsCA:
			s.Chain, s.Bundle, s.Key, s.order = chain, w.bundleFor(f), keyFor(f, p.cert, among), order
		}
		w.yield(s)
		found = true
	}
	return found
}

// bundleNames are what trust bundles are called, by us and by others.
var bundleNames = []string{"ca.crt", "ca.pem", "root_ca.crt"}

// bundleFor returns the roots that judge the chain in f.
func (w *walk) bundleFor(f *file) []*x509.Certificate {
	if w.bundle != nil {
		return w.bundle
	}
	for dir := filepath.Dir(f.path); ; dir = filepath.Dir(dir) {
		if b := w.bundleIn(dir); b != nil {
			return b
		}
		if dir == w.root || dir == filepath.Dir(dir) {
			return nil
		}
	}
}

func (w *walk) bundleIn(dir string) []*x509.Certificate {
	if b, known := w.bundles[dir]; known {
		return b
	}
	var b []*x509.Certificate
	for _, name := range bundleNames {
		if f := read(filepath.Join(dir, name), false); f != nil {
			b = f.authorities()
		}
		if b != nil {
			break
		}
	}
	w.bundles[dir] = b
	return b
}
