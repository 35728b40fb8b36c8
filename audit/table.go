package audit

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"

	"github.com/artstore/artstore-pki/internal/printable"
)

// A table that has to fit a terminal cuts these columns first.
const (
	leastName  = 16
	leastPlace = 24
	gap        = "  "
)

// table writes one line for each row and one for each finding under it, worst
// first, then what to do about them, and a summary. What is worst is known at the
// end, so it keeps what it will print: some 300 bytes for each row.
type table struct {
	out   io.Writer
	width int
	lines []tableLine
	found map[string]bool // ids of checks
}

type tableLine struct {
	cells []string
	notes []string
	rank  int
	end   time.Time
	place string
}

// Row implements [Renderer].
func (t *table) Row(r *Row) error {
	if t.found == nil {
		t.found = map[string]bool{}
	}
	for _, f := range r.Findings {
		t.found[f.Check] = true
	}
	t.lines = append(t.lines, tableLine{r.cells(), r.notes(), r.rank(), r.end(), r.Place})
	return nil
}

// End implements [Renderer].
func (t *table) End(s *Summary) error {
	slices.SortStableFunc(t.lines, func(a, b tableLine) int {
		return cmp.Or(cmp.Compare(b.rank, a.rank), a.end.Compare(b.end), cmp.Compare(a.place, b.place))
	})
	w := bufio.NewWriter(t.out)
	lines := append([]tableLine{{cells: []string{"STATE", "LEFT", "ENDS", "NAME", "PLACE"}}}, t.lines...)
	widths := columns(lines, t.width)
	indent := strings.Repeat(" ", widths[0]) + gap
	for _, l := range lines {
		for n, cell := range l.cells {
			if n == len(l.cells)-1 { // the end of a path says more than its beginning
				_, _ = fmt.Fprintln(w, cutLeft(cell, widths[n])) // Flush keeps the error
				break
			}
			_, _ = w.WriteString(runewidth.FillRight(runewidth.Truncate(cell, widths[n], "…"), widths[n]) + gap)
		}
		for _, note := range l.notes {
			_, _ = fmt.Fprintln(w, indent+note)
		}
	}
	for _, line := range t.remedies() {
		_, _ = fmt.Fprintln(w, line)
	}
	_, _ = fmt.Fprintln(w, s)
	return w.Flush()
}

// rank puts what could not be checked between critical findings and warnings.
func (r *Row) rank() int {
	switch {
	case r.Severity() == Crit:
		return 3
	case r.Err != nil:
		return 2
	}
	return int(r.Severity())
}

func (r *Row) end() time.Time {
	if r.Cert == nil {
		return time.Time{}
	}
	return r.Cert.notAfter
}

func (r *Row) cells() []string {
	place := r.Place
	if r.Block > 1 {
		place = fmt.Sprintf("%s#%d", place, r.Block)
	}
	if len(r.Also) > 0 {
		place = fmt.Sprintf("%s and %d more", place, len(r.Also))
	}
	place = printable.Clean(place)
	if r.Cert == nil {
		return []string{r.State, "-", "-", "-", place}
	}
	left := span(r.Cert.notAfter.Sub(r.Judged))
	if r.Judged.After(r.Cert.notAfter) {
		left = "-" + left
	}
	return []string{r.State, left, r.Cert.notAfter.Local().Format(time.DateTime), printable.Clean(r.Cert.name), place}
}

func (r *Row) notes() (out []string) {
	if r.Err != nil {
		out = append(out, printable.Clean(r.Err.Error()))
	}
	for _, f := range r.Findings {
		out = append(out, f.Text)
	}
	return out
}

// columns computes the widths. Whatever does not fit goes off the place, then
// off the name; the others are short by nature.
func columns(lines []tableLine, width int) []int {
	widths := make([]int, len(lines[0].cells))
	total := len(gap) * (len(widths) - 1)
	for n := range widths {
		for _, l := range lines {
			widths[n] = max(widths[n], runewidth.StringWidth(l.cells[n]))
		}
		total += widths[n]
	}
	if width <= 0 {
		return widths
	}
	for _, c := range []struct{ column, least int }{{4, leastPlace}, {3, leastName}} {
		cut := max(0, min(total-width, widths[c.column]-c.least))
		widths[c.column] -= cut
		total -= cut
	}
	return widths
}

func cutLeft(s string, width int) string {
	over := runewidth.StringWidth(s) - width
	if over <= 0 {
		return s
	}
	return runewidth.TruncateLeft(s, over+1, "…")
}

// remedies says once for each kind of finding what to do.
func (t *table) remedies() (out []string) {
	for _, c := range checks {
		if t.found[c.id] {
			out = append(out, fmt.Sprintf("%s: %s (%s)", c.id, c.remedy, c.cites))
		}
	}
	if len(out) > 0 {
		out = append([]string{""}, out...)
	}
	return out
}
