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

// swapTries is how often a set is read again because it was swapped during the reading. Two
// swaps during one reading are rare, so the second try succeeds outside of tests.
const swapTries = 10

// resolveGeneration resolves a link into a set that is swapped, so that the files beside it
// are read from the same generation. Any other path stays as it is.
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

// swappedDir reads all files of a set, and again if the set was swapped meanwhile, so that
// the files that are yielded are of one generation.
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

// listing is one directory that was read.
type listing struct {
	path          string
	files         []*file
	below         []fs.DirEntry     // directories and links to directories
	dirs          []string          // those of them that the walk enters
	left          map[string]string // paths that are left out, with the reason
	link, current string            // see currentLink
	reached       map[string]bool   // names in current to which links beside it lead
}

// list reads the files of a directory.
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
			// The link was resolved once for all files, so certificate and key are of one
			// generation even if the link is swapped meanwhile.
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

// descend chooses the directories of a swapped set that the walk enters, and counts the paths
// that are left out. Kubernetes and package enroll leave the generation before for a
// moment or for good. It is not entered, because its certificates were replaced and may
// expire.
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

// generationName matches the directories that Kubernetes ("..2026_01_02_…") and package enroll
// ("gen-1…") swap.
var generationName = regexp.MustCompile(`^(\.\.[0-9]{4}_|gen-[0-9])[0-9_.]*$`)

// temporaryName matches the name that package durable gives to a file that is not complete.
var temporaryName = regexp.MustCompile(`^\.(.+)\.tmp[0-9A-Z]+$`)

// replaced reports whether a directory is an earlier generation of the set. It must have the
// name of a generation, and hold only files of which the current generation has a newer
// version. The name alone is not enough to hide files from an audit.
func (l *listing) replaced(dir string) bool {
	if !generationName.MatchString(dir) || !generationName.MatchString(l.current) {
		return false
	}
	entries, err := os.ReadDir(filepath.Join(l.path, dir))
	return err == nil && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		name := e.Name()
		if unfinished := temporaryName.FindStringSubmatch(name); unfinished != nil { // the next generation, which is written at the moment
			name = unfinished[1]
		}
		return !e.Type().IsRegular() || !l.reached[name]
	})
}

// torn reports whether the set was swapped while it was read.
func (l *listing) torn() bool {
	gone := slices.ContainsFunc(l.files, func(f *file) bool { return errors.Is(f.err(), fs.ErrNotExist) })
	if !gone || l.link == "" {
		return false
	}
	now, err := os.Readlink(filepath.Join(l.path, l.link))
	return err == nil && now != l.current
}

// currentLink returns the link through which the files of a directory are reached ("..data" of
// Kubernetes, "current" of package enroll), and the directory beside it to which it leads;
// or "" if there is none. It looks at the links to files, because they always name the
// right link: a listing may show the next link under its temporary name, or miss the
// one that is renamed at the moment.
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
