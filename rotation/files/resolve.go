package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

const maxLinks = 40 // as the kernel's limit

// dirIDs are real directories as they were at one time: a path alone does not
// tell that a directory was replaced.
type dirIDs map[string]fs.FileInfo

func (p dirIDs) has(dir string, info fs.FileInfo) bool {
	was := p[dir]
	return was != nil && info != nil && os.SameFile(was, info)
}

// resolver follows symbolic links, each directory once: files that reach their
// content through the same link get the same target, also while it is swapped.
type resolver struct {
	real   map[string]string
	dirs   []string // on the way, see watched
	places dirIDs   // where the files really are
}

func newResolver() *resolver { return &resolver{real: map[string]string{}, places: dirIDs{}} }

// all resolves the files of a plan. One that may be missing, and is, has no
// path, and for one that only the other certificates need the failure is kept
// apart. After a failure it goes on: the directories of all files are to be watched.
func (r *resolver) all(p resolvedSet) (paths map[string]string, failed map[string]error, err error) {
	paths, failed = map[string]string{}, map[string]error{}
	for _, name := range p.names() {
		path, ferr := r.file(name)
		switch {
		case ferr == nil:
			paths[name] = path
		case p.spare(name):
			failed[name] = ferr
		case slices.Contains(p.optional, name) && errors.Is(ferr, fs.ErrNotExist):
		case err == nil:
			err = ferr
		}
	}
	return paths, failed, err
}

func (r *resolver) file(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for range maxLinks {
		dir, err := r.dir(filepath.Dir(path))
		if err != nil {
			return "", err
		}
		path = filepath.Join(dir, filepath.Base(path))
		info, err := os.Lstat(path)
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			return path, nil
		}
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		path = target
	}
	return "", &fs.PathError{Op: "readlink", Path: path, Err: errors.New("too many symbolic links")}
}

func (r *resolver) dir(dir string) (string, error) {
	if known, ok := r.real[dir]; ok {
		return known, nil
	}
	r.dirs = append(r.dirs, filepath.Dir(dir)) // where dir itself, a directory or a link, is replaced
	target, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	r.real[dir] = target
	r.dirs = append(r.dirs, target, filepath.Dir(target))
	if info, err := os.Stat(target); err == nil { // else it is gone again, and so are its files
		r.places[target] = info
	}
	return target, nil
}

// watched lists the directories whose entries decide what the files are. One
// that does not exist stands for the nearest that does: it appears there first.
func (r *resolver) watched() []string {
	var out []string
	for _, d := range r.dirs {
		for {
			if info, err := os.Stat(d); err == nil && info.IsDir() || d == filepath.Dir(d) {
				break
			}
			d = filepath.Dir(d)
		}
		out = append(out, d)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
