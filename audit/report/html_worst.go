package report

import (
	"cmp"
	"container/heap"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/audit"
)

// worstRows holds the worst rows of a report, as many as a page has room for. The report
// itself may be larger than memory.
type worstRows struct {
	rows    rowHeap
	seen    int
	dropped int
}

// rowHeap is a heap whose first row is the mildest, which is dropped for a worse one.
type rowHeap []pageRow

// add keeps a row unless as many worse ones are held.
func (w *worstRows) add(r *audit.Row) {
	w.seen++
	one := pageRow{rank: r.Rank(), end: r.End(), Place: pagePlace(r), at: w.seen}
	if len(w.rows) < maxPageRows {
		fillPageRow(r, &one)
		heap.Push(&w.rows, one)
		return
	}
	w.dropped++
	if one.compare(&w.rows[0]) < 0 {
		fillPageRow(r, &one)
		w.rows[0] = one
		heap.Fix(&w.rows, 0)
	}
}

// sorted returns all rows, the worst first. No row may be added afterwards.
func (w *worstRows) sorted() []pageRow {
	slices.SortFunc(w.rows, func(a, b pageRow) int { return a.compare(&b) })
	return w.rows
}

// compare is negative if r belongs before other. No two rows are equal.
func (r *pageRow) compare(other *pageRow) int {
	return cmp.Or(cmp.Compare(other.rank, r.rank), r.end.Compare(other.end), strings.Compare(r.Place, other.Place), cmp.Compare(r.at, other.at))
}

// Len, Less, Swap, Push and Pop are those of [heap.Interface].
func (m rowHeap) Len() int           { return len(m) }
func (m rowHeap) Less(i, j int) bool { return m[i].compare(&m[j]) > 0 }
func (m rowHeap) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }
func (m *rowHeap) Push(x any)        { *m = append(*m, x.(pageRow)) }
func (m *rowHeap) Pop() any          { panic("audit: a page gives no row back") }
