package source

import (
	"path/filepath"
	"slices"

	"github.com/bmatcuk/doublestar/v4"
)

// filter chooses among the files of a walk by patterns. A pattern without a slash is matched
// with the last part of a path, at any depth. A pattern with a slash is matched with the
// path below the named directory.
type filter struct {
	include, exclude []string
}

// matchesFile reports whether a file is wanted.
func (f filter) matchesFile(root, path string) bool {
	return (len(f.include) == 0 || matches(f.include, root, path)) && !matches(f.exclude, root, path)
}

// matchesDir reports whether the walk goes into a directory. An excluded directory hides
// everything below it.
func (f filter) matchesDir(root, path string) bool { return !matches(f.exclude, root, path) }

// matches reports whether one of the patterns matches a path below root.
func matches(patterns []string, root, path string) bool {
	if len(patterns) == 0 {
		return false
	}
	below, err := filepath.Rel(root, path)
	if err != nil {
		below = path
	}
	return slices.ContainsFunc(patterns, func(p string) bool {
		subject := below
		if filepath.Base(p) == p {
			subject = filepath.Base(path)
		}
		ok, _ := doublestar.Match(p, filepath.ToSlash(subject)) // a malformed pattern matches nothing
		return ok
	})
}
