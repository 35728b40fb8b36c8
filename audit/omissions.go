package audit

import (
	"cmp"
	"slices"
	"sync"
)

// maxOmitted bounds the paths that are kept for whoever asks for them.
const maxOmitted = 100_000

// LeftOut is what a walk left out for one reason, on purpose.
type LeftOut struct {
	Reason string   `json:"reason"`
	Count  int      `json:"count"`
	Paths  []string `json:"paths,omitempty"` // with Config.Explain, sorted, 100 000 of all reasons at most
}

// omissions counts what walks leave out. The zero value keeps no paths.
type omissions struct {
	mu    sync.Mutex
	keep  bool
	kept  int
	found map[string]*LeftOut
}

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

// all are sorted, because files are looked at side by side.
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
