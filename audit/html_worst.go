package audit

import (
	"cmp"
	"container/heap"
	"slices"
	"strings"
)

// worst holds the rows that a page has room for. It never has more: a report may
// be longer than memory.
type worst struct {
	rows    mildestFirst
	seen    int
	dropped int
}

// mildestFirst is a heap: the row that gives way to a worse one is the first.
type mildestFirst []pageRow

// add keeps a row unless as many worse ones are held.
func (w *worst) add(r *Row) {
	w.seen++
	one := pageRow{rank: r.rank(), end: r.end(), Place: r.pagePlace(), at: w.seen}
	if len(w.rows) < maxPageRows {
		r.fill(&one)
		heap.Push(&w.rows, one)
		return
	}
	w.dropped++
	if one.compare(&w.rows[0]) < 0 {
		r.fill(&one)
		w.rows[0] = one
		heap.Fix(&w.rows, 0)
	}
}

// sorted are all rows, the worst first. Nothing may be added afterwards.
func (w *worst) sorted() []pageRow {
	slices.SortFunc(w.rows, func(a, b pageRow) int { return a.compare(&b) })
	return w.rows
}

// compare is negative if r belongs before other. No two rows are equal.
func (r *pageRow) compare(other *pageRow) int {
	return cmp.Or(cmp.Compare(other.rank, r.rank), r.end.Compare(other.end), strings.Compare(r.Place, other.Place), cmp.Compare(r.at, other.at))
}

// Len, Less, Swap, Push and Pop are those of [heap.Interface].
func (m mildestFirst) Len() int           { return len(m) }
func (m mildestFirst) Less(i, j int) bool { return m[i].compare(&m[j]) > 0 }
func (m mildestFirst) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }
func (m *mildestFirst) Push(x any)        { *m = append(*m, x.(pageRow)) }
func (m *mildestFirst) Pop() any          { panic("audit: a page gives no row back") }
