package source

import (
	"path/filepath"
	"slices"

	"github.com/bmatcuk/doublestar/v4"
)

// filter chooses among the files of a walk by patterns. One without a slash is
// for the last part of a path, at any depth; one with a slash is for the path
// below what was named.
type filter struct {
	include, exclude []string
}

func (f filter) matchesFile(root, path string) bool {
	return (len(f.include) == 0 || matches(f.include, root, path)) && !matches(f.exclude, root, path)
}

// matchesDir tells whether to go down: what is excluded is not, whatever is below it.
func (f filter) matchesDir(root, path string) bool { return !matches(f.exclude, root, path) }

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
		ok, _ := doublestar.Match(p, filepath.ToSlash(subject)) // a bad one matches nothing
		return ok
	})
}
