package source

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
)

// liveDir is one directory of a [Live].
type liveDir struct {
	path, root string
	parent     *liveDir // nil for one that was named
	at         dirContext
	with       judgedWith
	above      contextID // what at was made of

	units map[string]*liveUnit // of files by name; a swapped set is one unit, without a name
	names []string             // of units, sorted
	dirs  map[string]*liveDir
	below []string // the names of dirs, in the order of the walk

	current string          // of a swapped set: the directory with its files
	reached map[string]bool // and the names of these
	skip    map[string]bool // names that are yielded under the name of a link

	err     error // why it cannot be read
	success time.Time
}

// judgedWith are the files beside others by which these are judged: bundles, lists, and the link
// of a swapped set.
type judgedWith struct {
	names []string
	set   []signature
}

func (a judgedWith) equal(b judgedWith) bool {
	return slices.Equal(a.names, b.names) && slices.Equal(a.set, b.set)
}

// contextID identifies the bundle and the lists of a directory.
type contextID struct {
	bundle **cert.Certificate
	list   **cert.List
	sizes  [2]int
}

func (c dirContext) id() (id contextID) {
	if len(c.bundle) > 0 {
		id.bundle = &c.bundle[0]
	}
	if len(c.lists) > 0 {
		id.list = &c.lists[0]
	}
	id.sizes = [2]int{len(c.bundle), len(c.lists)}
	return id
}

// newDir makes a directory known. Live.mu must be held.
func (l *Live) newDir(path, root string, parent *liveDir) *liveDir {
	d := &liveDir{path: path, root: root, parent: parent, units: map[string]*liveUnit{}, dirs: map[string]*liveDir{}}
	l.dirs[path] = append(l.dirs[path], d)
	return d
}

// forget removes a directory and those below it. Live.mu must be held.
func (l *Live) forget(d *liveDir) {
	l.dirs[d.path] = slices.DeleteFunc(l.dirs[d.path], func(other *liveDir) bool { return other == d })
	if len(l.dirs[d.path]) == 0 {
		delete(l.dirs, d.path)
	}
	l.trees.leave(d.path)
	for _, child := range d.dirs {
		l.forget(child)
	}
}

// add makes an empty unit for a file. Live.mu must be held.
func (d *liveDir) add(name string) *liveUnit {
	u := &liveUnit{}
	d.units[name] = u
	if at, there := slices.BinarySearch(d.names, name); !there {
		d.names = slices.Insert(d.names, at, name)
	}
	return u
}

// drop removes the unit of a file. Live.mu must be held.
func (d *liveDir) drop(name string) {
	delete(d.units, name)
	if at, there := slices.BinarySearch(d.names, name); there {
		d.names = slices.Delete(d.names, at, at+1)
	}
}

// collectDir yields the subjects of a directory and of those below it. since is when a directory
// above it was last read, if that fails now; zero otherwise. Nothing is locked while yield runs.
func (l *Live) collectDir(d *liveDir, since time.Time, yield func(audit.Subject)) {
	l.mu.RLock()
	if d.err != nil {
		since = d.success
	}
	units := make([]liveUnit, len(d.names))
	for i, name := range d.names {
		units[i] = *d.units[name]
		if !since.IsZero() {
			units[i].err = nil // that of the directory is enough
		}
	}
	names, failed := slices.Clone(d.names), d.err
	below := make([]*liveDir, len(d.below))
	for i, name := range d.below {
		below[i] = d.dirs[name]
	}
	l.mu.RUnlock()
	if failed != nil && d.parent != nil { // the row of a named path has the error already
		yield(audit.Subject{Place: d.path, Err: failed})
	}
	for i := range units {
		units[i].yield(audit.Subject{Place: filepath.Join(d.path, names[i])}, func(s audit.Subject) {
			if !since.IsZero() {
				s.Stale = since
			}
			yield(s)
		})
	}
	for _, child := range below {
		l.collectDir(child, since, yield)
	}
}

// Changed looks at paths that a notification of the file system has named, and reads those of
// them that have changed, with the files that are judged by them.
func (l *Live) Changed(ctx context.Context, paths []string) {
	s := l.newScan(ctx, false)
	files, whole := map[*liveDir][]string{}, map[*liveDir]bool{}
	for _, path := range paths {
		dir, name := filepath.Split(path)
		for _, d := range l.dirs[filepath.Clean(dir)] { // only this goroutine changes the map
			switch {
			case d.skip[name] && d.parent != nil: // it is read under the name of a link
				whole[d.parent] = true
			case s.single(d, name):
				files[d] = append(files[d], name)
			default:
				whole[d] = true
			}
		}
		for _, d := range l.dirs[path] {
			whole[d] = true
		}
		for _, r := range l.roots {
			if r.file != nil && filepath.Dir(r.path) == filepath.Clean(dir) {
				s.namedFile(&walk{collection: s.collection, root: r.path}, r)
			}
		}
	}
	for d := range whole {
		above := dirContext{}
		if d.parent != nil {
			above = d.parent.at
		}
		if slices.Contains(l.dirs[d.path], d) { // it may have gone with another one
			s.dir(&walk{collection: s.collection, root: d.root}, d, above, false)
		}
		s.work.Wait()
	}
	for d, names := range files {
		if !whole[d] && slices.Contains(l.dirs[d.path], d) {
			s.some(d, names)
		}
	}
	s.work.Wait()
}

// single reports whether a change of this name says nothing of other files but those whose key it
// may hold.
func (s *scan) single(d *liveDir, name string) bool {
	if d.current != "" || d.skip[name] || d.err != nil || slices.Contains(bundleNames, name) || isListName(name) || d.dirs[name] != nil {
		return false
	}
	info, err := os.Lstat(filepath.Join(d.path, name))
	return err == nil && info.Mode().IsRegular() || errors.Is(err, fs.ErrNotExist)
}

// some looks at some files of a directory that is no swapped set.
func (s *scan) some(d *liveDir, names []string) {
	w := &walk{collection: s.collection, root: d.root}
	at := d.at
	at.keys = keyring{}
	var read []fs.DirEntry
	var keys []string
	for _, name := range names {
		full := filepath.Join(d.path, name)
		info, err := os.Lstat(full)
		if mayHoldKey(name) {
			keys = append(keys, name)
		}
		switch {
		case err != nil:
			s.mu.Lock()
			d.drop(name)
			s.mu.Unlock()
		case w.pathFilter.matchesFile(w.root, full) && s.changed(d, name, full):
			read = append(read, fs.FileInfoToDirEntry(info))
		}
	}
	read = append(read, s.withKeys(d, keys, read)...)
	for _, e := range read {
		for _, name := range append(keyNames(e.Name()), e.Name()) {
			full := filepath.Join(d.path, name)
			info, err := os.Lstat(full)
			if err == nil && mayHoldKey(name) && at.keys[name] == nil && w.pathFilter.matchesFile(w.root, full) && !info.IsDir() {
				at.keys.add(name, func() *file { return w.entry(full, fs.FileInfoToDirEntry(info)) })
			}
		}
	}
	s.read(w, d, at, read)
}

// leave forgets a directory that the walk has entered through a link.
func (t *trees) leave(link string) {
	if info, err := os.Lstat(link); err == nil && info.Mode()&fs.ModeSymlink == 0 {
		return // no link: it was never entered
	}
	if dir, err := realPath(link); err == nil && !strings.HasPrefix(link, dir) {
		delete(t.roots, dir)
	}
}
