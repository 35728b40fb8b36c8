package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

const maxLinks = 40 // symbolic links of one path; the limit of the Linux kernel

// dirIDs has the directories of files by their paths without links. A path alone does not
// tell whether the directory was replaced.
type dirIDs map[string]fs.FileInfo

// has reports whether the directory at the path dir was the same then.
func (p dirIDs) has(dir string, info fs.FileInfo) bool {
	was := p[dir]
	return was != nil && info != nil && os.SameFile(was, info)
}

// resolver follows symbolic links, and resolves each directory once. So files that are
// reached through the same link get the same target, even while the link is swapped.
type resolver struct {
	real   map[string]string // directories without links, by the paths that led to them
	dirs   []string          // all directories on the way, see watched
	places dirIDs            // of the files, without links
}

func newResolver() *resolver { return &resolver{real: map[string]string{}, places: dirIDs{}} }

// all resolves the files of a set, by name. An optional file that is missing gets no path.
// The failure of a file that only the other certificates need is in failed. After a
// failure it goes on, because the directories of all files must be watched.
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

// file returns the path of a file without symbolic links.
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

// dir returns the path of a directory without symbolic links.
func (r *resolver) dir(dir string) (string, error) {
	if known, ok := r.real[dir]; ok {
		return known, nil
	}
	r.dirs = append(r.dirs, filepath.Dir(dir)) // dir itself, a directory or a link, can be replaced there
	target, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	r.real[dir] = target
	r.dirs = append(r.dirs, target, filepath.Dir(target))
	if info, err := os.Stat(target); err == nil { // otherwise it was removed, and its files with it
		r.places[target] = info
	}
	return target, nil
}

// watched returns the directories in which the files, or links on the way to them, can be
// replaced. For a directory that does not exist it has the nearest parent that does,
// because the missing part will appear there.
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
