package source

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/endpoint"
	"github.com/artstore/artstore-pki/audit/internal/ordered"
)

// scan is one call of Live.Scan or Live.Changed.
type scan struct {
	*Live
	*collection
	now   time.Time
	whole bool           // all paths are looked at, so that links are followed anew
	work  sync.WaitGroup // the files that are being read
}

func (l *Live) newScan(ctx context.Context, whole bool) *scan {
	return &scan{Live: l, collection: l.collection(ctx), now: time.Now(), whole: whole}
}

// Scan looks at all paths, reads what is new, has changed or is due, and forgets what is gone. It
// also finds which targets are servers.
func (l *Live) Scan(ctx context.Context) {
	targets := splitTargets(l.targets.Names)
	l.mu.Lock()
	l.trees = newTrees(targets.paths)
	l.mu.Unlock()
	s := l.newScan(ctx, true)
	l.setTargets(targets)
	for _, r := range l.roots { // only this goroutine changes them
		began := time.Now()
		err := targets.failed[r.name]
		if err == nil {
			err = s.root(r)
		}
		s.work.Wait()
		if ctx.Err() != nil {
			return
		}
		l.mu.Lock()
		r.note(began, err)
		l.mu.Unlock()
	}
}

// setTargets adds what is new among the targets and removes what is no target any more.
func (l *Live) setTargets(targets named) {
	l.mu.Lock()
	defer l.mu.Unlock()
	roots, servers := l.roots, l.servers
	l.roots, l.servers = nil, nil
	for _, name := range targets.paths {
		i := slices.IndexFunc(roots, func(r *liveRoot) bool { return r.name == name })
		if i < 0 {
			roots, i = append(roots, &liveRoot{name: name, path: filepath.Clean(name)}), len(roots)
		}
		if !slices.Contains(l.roots, roots[i]) {
			l.roots = append(l.roots, roots[i])
		}
	}
	for _, name := range targets.servers {
		i := slices.IndexFunc(servers, func(s *liveServer) bool { return s.name == name })
		if i < 0 {
			servers, i = append(servers, &liveServer{name: name, place: endpoint.Place(name)}), len(servers)
		}
		if !slices.Contains(l.servers, servers[i]) {
			l.servers = append(l.servers, servers[i])
		}
	}
	for _, r := range roots {
		if !slices.Contains(l.roots, r) {
			l.clearRoot(r)
		}
	}
}

// clearRoot forgets what a named path was. Live.mu must be held.
func (l *Live) clearRoot(r *liveRoot) {
	if r.top != nil {
		l.forget(r.top)
	}
	r.top, r.file = nil, nil
}

// root looks at one named path. Its error is that of the path itself.
func (s *scan) root(r *liveRoot) error {
	info, err := stat(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		s.mu.Lock()
		s.clearRoot(r)
		s.mu.Unlock()
	}
	if err != nil {
		return withoutPath(err)
	}
	w := &walk{collection: s.collection, root: r.path}
	if !info.IsDir() {
		s.namedFile(w, r)
		return nil
	}
	if r.top == nil {
		s.mu.Lock()
		s.clearRoot(r)
		r.top = s.newDir(r.path, w.root, nil)
		s.mu.Unlock()
	}
	s.dir(w, r.top, dirContext{}, false)
	return r.top.err
}

// namedFile looks at a file that was named itself. The files beside it that may matter are few.
func (s *scan) namedFile(w *walk, r *liveRoot) {
	beside := slices.Concat(keyNames(r.path), bundleNames)
	set := s.signatures(filepath.Dir(r.path), append(beside, filepath.Base(r.path)))
	u := r.file
	if u != nil && slices.Equal(u.set, set) && s.now.Before(u.due) {
		return
	}
	found := s.alone(w, func(w *walk) { w.start() })
	s.mu.Lock()
	defer s.mu.Unlock()
	if u == nil {
		s.clearRoot(r)
		u = &liveUnit{}
		r.file = u
	}
	u.set = set
	s.fill(u, found, s.now)
}

// signatures returns those of files in a directory. One that does not exist has none.
func (s *scan) signatures(dir string, names []string) (out []signature) {
	for _, name := range names {
		var one signature
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil {
			one = signatureOf(info)
		}
		out = append(out, one)
	}
	return out
}

// alone runs a part of a walk that yields through the pool, and returns its subjects, kept.
func (s *scan) alone(w *walk, part func(*walk)) (found []audit.Subject) {
	c := *w.collection
	c.pieces = ordered.New(func(b batch) { b.yield(func(one audit.Subject) { found = append(found, s.kept(one)) }) })
	part(&walk{collection: &c, root: w.root})
	c.pieces.Wait()
	return found
}

// dir looks at a directory and at those below it. force reads all files, because what they are
// judged with has changed.
func (s *scan) dir(w *walk, d *liveDir, above dirContext, force bool) {
	if s.ctx.Err() != nil {
		return
	}
	entries, err := os.ReadDir(d.path)
	if s.setErr(d, err); err != nil {
		return // its subjects are stale now; its parent has seen if it is gone
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return d.skip[e.Name()] })
	link, target := currentLink(d.path, entries)
	beside := []string{}
	for _, e := range entries {
		if slices.Contains(bundleNames, e.Name()) || isListName(e.Name()) {
			beside = append(beside, e.Name())
		}
	}
	with := judgedWith{names: append(beside, link, target), set: s.signatures(d.path, beside)}
	if force = force || !d.with.equal(with) || d.above != above.id(); force {
		at := dirContext{above.bundle, nil, slices.Concat(above.lists, w.listsAt(d.path, entries))}
		if own := w.bundleAt(d.path, entries...); own != nil {
			at.bundle = own
		}
		d.at, d.with, d.above = at, with, above.id()
	}
	var below []string
	if link != "" {
		below = s.swapped(w, d, entries, force)
	} else {
		below = s.plain(w, d, entries, force)
	}
	s.below(w, d, below, force)
}

// below looks at the directories in a directory, and forgets those that are gone.
func (s *scan) below(w *walk, d *liveDir, names []string, force bool) {
	s.mu.Lock()
	for name, child := range d.dirs {
		if !slices.Contains(names, name) {
			s.forget(child)
			delete(d.dirs, name)
		}
	}
	for _, name := range names {
		if d.dirs[name] == nil {
			d.dirs[name] = s.newDir(filepath.Join(d.path, name), w.root, d)
		}
	}
	d.below = names
	s.mu.Unlock()
	for _, name := range names {
		child := d.dirs[name]
		if name == d.current {
			child.skip = d.reached
		} else {
			child.skip = nil
		}
		s.dir(w, child, d.at, force)
	}
}

// swapped looks at a set of files that is swapped, which is read as a whole.
func (s *scan) swapped(w *walk, d *liveDir, entries []fs.DirEntry, force bool) (below []string) {
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	set := s.signatures(d.path, names)
	u := d.units[""]
	if !force && u != nil && slices.Equal(u.set, set) && s.now.Before(u.due) {
		for _, name := range d.below {
			if s.whole && !s.follows(w, filepath.Join(d.path, name)) {
				continue
			}
			below = append(below, name)
		}
		return below
	}
	for _, name := range d.below { // a link is followed again
		if !s.whole {
			s.collection.trees.leave(filepath.Join(d.path, name))
		}
	}
	at := d.at
	at.keys = keyring{}
	var l listing
	found := s.alone(w, func(w *walk) { l = w.swappedDir(d.path, at) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if u == nil {
		clear(d.units)
		u = &liveUnit{}
		d.units[""], d.names = u, []string{""}
	}
	u.set = set
	s.fill(u, found, s.now)
	d.current, d.reached = l.current, l.reached
	return l.dirs
}

// follows reports whether a directory that was followed before is followed in this scan too.
func (s *scan) follows(w *walk, path string) bool {
	info, err := os.Lstat(path)
	return err == nil && w.goesDown(path, fs.FileInfoToDirEntry(info))
}

// plain looks at the files of a directory, and returns the directories in it.
func (s *scan) plain(w *walk, d *liveDir, entries []fs.DirEntry, force bool) (below []string) {
	d.current, d.reached = "", nil
	at := d.at
	at.keys = keyring{}
	there := make(map[string]bool, len(entries))
	var read []fs.DirEntry
	var keys []string // names of key files that have changed
	for _, e := range entries {
		full := filepath.Join(d.path, e.Name())
		link := e.Type()&fs.ModeSymlink != 0
		if e.IsDir() || link && isDir(full) {
			if !s.whole && d.dirs[e.Name()] != nil || w.goesDown(full, e) {
				below = append(below, e.Name())
			}
			continue
		}
		if !w.pathFilter.matchesFile(w.root, full) {
			continue
		}
		there[e.Name()] = true
		if mayHoldKey(e.Name()) {
			at.keys.add(e.Name(), func() *file { return w.entry(full, e) })
		}
		if !s.changed(d, e.Name(), full) && !force {
			continue
		}
		read = append(read, e)
		if mayHoldKey(e.Name()) {
			keys = append(keys, e.Name())
		}
	}
	keys = append(keys, s.dropGone(d, there)...)
	if !force && len(keys) > 0 {
		read = append(read, s.withKeys(d, keys, read)...)
	}
	s.read(w, d, at, read)
	return below
}

// changed reports whether a file is new, has changed, or is due.
func (s *scan) changed(d *liveDir, name, full string) bool {
	u := d.units[name]
	if u == nil || !s.now.Before(u.due) {
		return true
	}
	info, err := os.Stat(full)
	return err != nil && u.signature != (signature{}) || err == nil && u.signature != signatureOf(info)
}

// dropGone forgets the files that are not there, and returns those of them that may have held
// keys.
func (s *scan) dropGone(d *liveDir, there map[string]bool) (keys []string) {
	gone := slices.DeleteFunc(slices.Clone(d.names), func(name string) bool { return there[name] })
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range gone {
		d.drop(name)
		if mayHoldKey(name) {
			keys = append(keys, name)
		}
	}
	return keys
}

// withKeys returns the files of a directory whose keys may be in files that have changed, without
// those that are read anyway.
func (s *scan) withKeys(d *liveDir, keys []string, read []fs.DirEntry) (out []fs.DirEntry) {
	for _, name := range d.names {
		if len(d.units[name].subjects) == 0 || slices.ContainsFunc(read, func(e fs.DirEntry) bool { return e.Name() == name }) {
			continue
		}
		if slices.ContainsFunc(keyNames(name), func(key string) bool { return slices.Contains(keys, key) }) {
			if info, err := os.Lstat(filepath.Join(d.path, name)); err == nil {
				out = append(out, fs.FileInfoToDirEntry(info))
			}
		}
	}
	return out
}

// read reads files of a directory in parallel. The caller waits for the work of the scan.
func (s *scan) read(w *walk, d *liveDir, at dirContext, entries []fs.DirEntry) {
	for some := range slices.Chunk(entries, atOnce) {
		s.files <- struct{}{}
		s.work.Go(func() {
			defer func() { <-s.files }()
			for _, e := range some {
				if s.ctx.Err() != nil {
					return
				}
				s.readOne(w, d, at, e)
			}
		})
	}
}

// readOne reads one file. The signature is taken before, so that a change in between is seen the
// next time.
func (s *scan) readOne(w *walk, d *liveDir, at dirContext, e fs.DirEntry) {
	full := filepath.Join(d.path, e.Name())
	var sign signature
	if info, err := os.Stat(full); err == nil {
		sign = signatureOf(info)
	}
	var found []audit.Subject
	batch{found: w.readEntrySubjects(full, e, at)}.yield(func(one audit.Subject) { found = append(found, s.kept(one)) })
	s.mu.Lock()
	defer s.mu.Unlock()
	u := d.units[e.Name()]
	if u == nil {
		if len(found) == 0 && isGone(full) {
			return
		}
		u = d.add(e.Name())
	}
	u.signature = sign
	s.fill(u, found, s.now)
}

// setErr notes why a directory could not be read, or that it could.
func (s *scan) setErr(d *liveDir, err error) {
	if errors.Is(err, fs.ErrNotExist) && isGone(d.path) {
		err = fs.ErrNotExist
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.err = withoutPath(err); err == nil {
		d.success = s.now
	}
}
