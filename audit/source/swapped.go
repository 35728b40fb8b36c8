package source

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// swapTries is how often a set is read that was swapped away under the reading.
// Two swaps must fall into one reading for that, so a second try does outside of tests.
const swapTries = 10

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
