package spool

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// found is a file that may be claimed.
type found struct {
	name string // below the spooled directory
	id   identity
}

// older orders by age, then by name: the same on every machine.
func older(a, b found) int {
	if a.id.MTime != b.id.MTime {
		if a.id.MTime < b.id.MTime {
			return -1
		}
		return 1
	}
	return strings.Compare(a.name, b.name)
}

// ignored reports the names that are not ours: what writers use for files that
// are not whole yet, and everything hidden, our own state among it.
func ignored(base string) bool {
	return strings.HasPrefix(base, ".") || strings.HasSuffix(base, ".part") || strings.HasSuffix(base, ".tmp")
}

// scanner looks through the spooled directory.
type scanner struct {
	dir       string
	recursive bool
	watch     *watcher
}

// scan lists regular files, and tells the watcher of directories. Nothing is
// opened but directories: a FIFO would hang, a device could do anything. What
// vanishes meanwhile, or cannot be read below the top, is skipped.
func (s scanner) scan(ctx context.Context) ([]found, error) {
	var out []found
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if path == s.dir {
			s.watch.add(path)
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		switch {
		case err != nil:
			return nil //nolint:nilerr // skipped, as promised; the next scan looks again
		case ignored(d.Name()):
			return skip(d)
		case d.IsDir() && !s.recursive:
			return fs.SkipDir
		case d.IsDir():
			s.watch.add(path)
			return nil
		}
		if f, ok := s.look(path, d.Type()); ok {
			out = append(out, f)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func skip(d fs.DirEntry) error {
	if d.IsDir() {
		return fs.SkipDir
	}
	return nil
}

func (s scanner) look(path string, kind fs.FileMode) (found, bool) {
	if !kind.IsRegular() {
		return found{}, false
	}
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return found{}, false
	}
	name, err := filepath.Rel(s.dir, path)
	return found{name: name, id: identify(info)}, err == nil
}

// sighting is when a file was first seen as it is now.
type sighting struct {
	id    identity
	since time.Time
}

// settled remembers files until they have stood still for a while. The clock is
// ours: a modification time says nothing, because cp -p and rsync set it to the
// original's while they still write.
type settled struct {
	after time.Duration
	seen  map[string]sighting
}

// update takes the result of a scan and returns what is complete, oldest first,
// and when to look again for what is not; 0: nothing waits.
func (s *settled) update(files []found, now time.Time) (complete []found, again time.Duration) {
	seen := make(map[string]sighting, len(files))
	for _, f := range files {
		was, ok := s.seen[f.name]
		if !ok || was.id != f.id {
			was = sighting{f.id, now}
		}
		seen[f.name] = was
		left := s.after - now.Sub(was.since)
		if left <= 0 {
			complete = append(complete, f)
			continue
		}
		if again == 0 || left < again {
			again = left
		}
	}
	s.seen = seen // what is gone is forgotten
	slices.SortFunc(complete, older)
	return complete, again
}
