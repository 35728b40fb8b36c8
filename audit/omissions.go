package audit

import (
	"cmp"
	"slices"
	"sync"
)

// maxOmitted bounds the paths that are kept for Config.Explain.
const maxOmitted = 100_000

// LeftOut are the paths that walks have left out on purpose for one reason.
type LeftOut struct {
	Reason string `json:"reason"`
	Count  int    `json:"count"`
	// Paths are sorted. They are empty without Config.Explain. All reasons together have
	// 100 000 paths at most.
	Paths []string `json:"paths,omitempty"`
}

// omissions counts the paths that walks leave out. The zero value keeps no paths.
type omissions struct {
	mu    sync.Mutex
	keep  bool // the paths, too
	kept  int
	found map[string]*LeftOut // by reason
}

// add counts a path. Several goroutines call it.
func (o *omissions) add(path, reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.found[reason]
	if l == nil {
		if o.found == nil {
			o.found = map[string]*LeftOut{}
		}
		l = &LeftOut{Reason: reason}
		o.found[reason] = l
	}
	l.Count++
	if o.keep && o.kept < maxOmitted {
		o.kept++
		l.Paths = append(l.Paths, path)
	}
}

// all returns the reasons in order, with sorted paths: paths are added in parallel, and
// reports of the same files should be equal.
func (o *omissions) all() (out []LeftOut) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.found {
		slices.Sort(l.Paths)
		out = append(out, *l)
	}
	slices.SortFunc(out, func(a, b LeftOut) int { return cmp.Compare(a.Reason, b.Reason) })
	return out
}
