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
	to    Terminal
	wide  bool // more columns and findings that are an [Info]; it cuts nothing
	lines []tableLine
	found map[string]bool // ids of checks
}

var (
	tableHead = []string{"STATE", "LEFT", "ENDS", "NAME", "PLACE"}
	wideHead  = []string{"STATE", "LEFT", "ENDS", "NAME", "NAMES", "ISSUER", "SERIAL", "KEY", "PLACE"}
)

// colours of a state by its rank (ECMA-48 SGR): green, yellow, magenta, red and
// bold. The word says the same.
var colours = [...]string{"\x1b[32m", "\x1b[33m", "\x1b[35m", "\x1b[1;31m"}

const noColour = "\x1b[0m"

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
	least := Warn
	if t.wide {
		least = Info
	}
	for _, f := range r.Findings {
		t.found[f.Check] = t.found[f.Check] || f.Severity >= least
	}
	cells := r.cells()
	if t.wide {
		cells = slices.Insert(cells, len(cells)-1, r.more()...)
	}
	t.lines = append(t.lines, tableLine{cells, r.notes(least), r.rank(), r.end(), r.Place})
	return nil
}

// End implements [Renderer].
func (t *table) End(s *Summary) error {
	slices.SortStableFunc(t.lines, func(a, b tableLine) int {
		return cmp.Or(cmp.Compare(b.rank, a.rank), a.end.Compare(b.end), cmp.Compare(a.place, b.place))
	})
	w := bufio.NewWriter(t.out)
	head := tableLine{cells: tableHead}
	if t.wide {
		head.cells = wideHead
	}
	lines := append([]tableLine{head}, t.lines...)
	widths := columns(lines, t.to.Width)
	indent := strings.Repeat(" ", widths[0]) + gap
	for i, l := range lines {
		_, _ = fmt.Fprintln(w, l.text(widths, t.to.Colour && i > 0)) // Flush keeps the error
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

// text is the line of a row, with its state in colour or not.
func (l *tableLine) text(widths []int, coloured bool) string {
	var b strings.Builder
	last := len(l.cells) - 1
	for n, cell := range l.cells[:last] {
		cell = runewidth.FillRight(runewidth.Truncate(cell, widths[n], "…"), widths[n])
		if n == 0 && coloured {
			cell = colours[l.rank] + cell + noColour
		}
		_, _ = b.WriteString(cell + gap) // never fails
	}
	return b.String() + cutLeft(l.cells[last], widths[last]) // the end of a path says more than its beginning
}

// rank puts what could not be checked between critical findings and warnings.
func (r *Row) rank() int {
	switch severity := r.Severity(); {
	case severity == Crit:
		return 3
	case r.Err != nil:
		return 2
	case severity == Warn:
		return 1
	}
	return 0
}

// cell makes text of strangers fit for a table, where a tab would look like the
// beginning of the next column.
func cell(s string) string { return strings.ReplaceAll(printable.Clean(s), "\t", `\u0009`) }

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
	if r.Kind == kindRecord && r.Cert != nil {
		place += " " + r.Cert.serial // replicas differ in nothing else
	}
	place = cell(place)
	if r.Cert == nil {
		return []string{r.State, "-", "-", "-", place}
	}
	left := span(r.Cert.notAfter.Sub(r.Judged))
	if r.Judged.After(r.Cert.notAfter) {
		left = "-" + left
	}
	return []string{r.State, left, r.Cert.notAfter.Local().Format(time.DateTime), cell(r.Cert.name), place}
}

// more are the cells that only a wide table has, before the place.
func (r *Row) more() []string {
	c := r.Cert
	if c == nil {
		return []string{"-", "-", "-", "-"}
	}
	out := []string{strings.Join(c.names, ","), c.issuerName, c.serial, c.key.String()}
	for i := range out {
		out[i] = cell(cmp.Or(out[i], "-"))
	}
	return out
}

func (r *Row) notes(least Severity) (out []string) {
	if r.Err != nil {
		out = append(out, cell(r.Err.Error()))
	}
	for _, f := range r.Findings {
		if f.Severity >= least {
			out = append(out, cell(f.Text))
		}
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
