package source

import "path/filepath"

// trees are the directories that an audit walks, by their real paths: those that were
// named, and those that a link in one of them leads to. A link to a directory outside is
// followed, because the files behind it are in use as much as those beside it. One
// into a tree is not, since its files are seen there. One to a directory above a tree
// is not either: a link to / would be an audit of everything. So each directory is
// walked for one link at most, and loops end.
type trees struct {
	roots map[string]bool
	above map[string]bool // the directories above roots
}

func newTrees(named []string) *trees {
	t := &trees{map[string]bool{}, map[string]bool{}}
	for _, path := range named {
		if dir, err := realPath(path); err == nil {
			t.add(dir)
		}
	}
	return t
}

func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

func (t *trees) add(dir string) {
	t.roots[dir] = true
	for d := filepath.Dir(dir); !t.above[d]; d = filepath.Dir(d) {
		t.above[d] = true
	}
}

// enter decides on a link to a directory: "" to follow it, or why not.
func (t *trees) enter(link string) (reason string) {
	dir, err := realPath(link)
	if err != nil { // it is gone by now, and so is its directory
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

// Why a walk leaves something out. What could not be read is no omission: that is a
// row of the report.
const (
	otherKind   = "files of other kinds"                                  // neither name nor the first 4 KiB promise anything
	notWanted   = "excluded by pattern"                                   // files and whole directories
	seenThere   = "links to what is seen elsewhere"                       // directories of this walk
	leadsAbove  = "links that lead above the target"                      // following one would leave what was asked for
	replacedSet = "replaced generations"                                  // of Kubernetes volumes and enrolled identities
	manyLists   = "revocation lists that no certificate is compared with" // beyond the bound of a directory; each has its row
)
