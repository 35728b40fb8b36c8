package spool

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ingestclient/spool/internal/fileat"
)

// foundFile is a file that may be claimed.
type foundFile struct {
	name string // below the spooled directory
	id   fileat.ID
}

// compareAge orders by age, the oldest first, then by name.
func compareAge(a, b foundFile) int {
	if a.id.MTime != b.id.MTime {
		if a.id.MTime < b.id.MTime {
			return -1
		}
		return 1
	}
	return strings.Compare(a.name, b.name)
}

// ignored reports whether files of this name are never sent: names that writers use for
// incomplete files, and hidden ones, such as that of the state.
func ignored(base string) bool {
	return strings.HasPrefix(base, ".") || strings.HasSuffix(base, ".part") || strings.HasSuffix(base, ".tmp")
}

// scanner lists the files of the spooled directory.
type scanner struct {
	dir       string
	recursive bool
	watch     *watcher
}

// scan lists regular files, and adds directories to the watcher. It opens only directories:
// to open a FIFO may block, and to open a device may do anything. It skips files that vanish
// meanwhile, and directories below the top that cannot be read.
func (s scanner) scan(ctx context.Context) ([]foundFile, error) {
	var out []foundFile
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
			return nil //nolint:nilerr // skipped; the next scan tries again
		case ignored(d.Name()):
			return skip(d)
		case d.IsDir() && !s.recursive:
			return fs.SkipDir
		case d.IsDir():
			s.watch.add(path)
			return nil
		}
		if f, ok := s.inspect(path, d.Type()); ok {
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

// inspect returns the file at path if it is a regular one.
func (s scanner) inspect(path string, kind fs.FileMode) (foundFile, bool) {
	if !kind.IsRegular() {
		return foundFile{}, false
	}
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return foundFile{}, false
	}
	name, err := filepath.Rel(s.dir, path)
	return foundFile{name: name, id: fileat.IDOf(info)}, err == nil
}

// firstSeen is when a file was first seen as it is now.
type firstSeen struct {
	id    fileat.ID
	since time.Time
}

// stability records since when each file has not changed, by our clock. The modification time
// does not tell that, because cp -p and rsync set it to that of the original while they
// still write.
type stability struct {
	after time.Duration
	seen  map[string]firstSeen
}

// update takes the result of a scan and returns the complete files, oldest first. again is
// when the next of the other files may be complete; 0 if there are none.
func (s *stability) update(files []foundFile, now time.Time) (complete []foundFile, again time.Duration) {
	seen := make(map[string]firstSeen, len(files))
	for _, f := range files {
		was, ok := s.seen[f.name]
		if !ok || was.id != f.id {
			was = firstSeen{f.id, now}
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
	s.seen = seen // without files that are gone
	slices.SortFunc(complete, compareAge)
	return complete, again
}
