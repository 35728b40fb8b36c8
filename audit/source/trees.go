package source

import "path/filepath"

// trees are the directories that an audit walks, by their real paths: the named ones, and
// those to which links in them lead. A link to a directory outside of all trees is
// followed, because programs use the files behind it. A link into a tree is not followed,
// because its files are found there. A link to a directory above a tree is not followed
// either, because a link to / would audit everything. Therefore each directory is walked
// for one link at most, and loops end.
type trees struct {
	roots map[string]bool
	above map[string]bool // the directories above roots
}

// newTrees returns the trees of the named paths. Paths that do not exist are left out.
func newTrees(named []string) *trees {
	t := &trees{map[string]bool{}, map[string]bool{}}
	for _, path := range named {
		if dir, err := realPath(path); err == nil {
			t.add(dir)
		}
	}
	return t
}

// realPath returns the absolute path without links.
func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// add adds a real path.
func (t *trees) add(dir string) {
	t.roots[dir] = true
	for d := filepath.Dir(dir); !t.above[d]; d = filepath.Dir(d) {
		t.above[d] = true
	}
}

// enter returns "" if the walk should follow a link to a directory, and the reason if not.
// It adds a directory that is followed.
func (t *trees) enter(link string) (reason string) {
	dir, err := realPath(link)
	if err != nil { // the link was removed during the walk
		return seenThere
	}
	for d := dir; ; d = filepath.Dir(d) {
		if t.roots[d] {
			return seenThere
		}
		if d == filepath.Dir(d) {
			break
		}
	}
	if t.above[dir] {
		return leadsAbove
	}
	t.add(dir)
	return ""
}

// The reasons for which a walk leaves paths out. A path that cannot be read is no omission:
// it is a row of the report.
const (
	otherKind   = "files of other kinds"                                  // neither name nor the first 4 KiB promise anything
	notWanted   = "excluded by pattern"                                   // files and whole directories
	seenThere   = "links to what is seen elsewhere"                       // directories of this walk
	leadsAbove  = "links that lead above the target"                      // following one would leave what was asked for
	replacedSet = "replaced generations"                                  // of Kubernetes volumes and enrolled identities
	manyLists   = "revocation lists that no certificate is compared with" // beyond the bound of a directory; each has its row
)
