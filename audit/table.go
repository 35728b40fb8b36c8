package audit

import (
	"bufio"
	"fmt"
	"io"
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

// WriteTable writes one line for each row and one for each finding under it,
// what to do about them, and a summary. width is that of the terminal; 0 cuts
// nothing.
func (r *Report) WriteTable(out io.Writer, width int) error {
	w := bufio.NewWriter(out)
	lines := [][]string{{"STATE", "LEFT", "ENDS", "NAME", "PLACE"}}
	for i := range r.Rows {
		lines = append(lines, r.Rows[i].cells())
	}
	widths := columns(lines, width)
	for i, cells := range lines {
		var b strings.Builder
		for n, cell := range cells {
			if n == len(cells)-1 { // the end of a path says more than its beginning
				b.WriteString(cutLeft(cell, widths[n]))
				break
			}
			b.WriteString(runewidth.FillRight(runewidth.Truncate(cell, widths[n], "…"), widths[n]) + gap)
		}
		_, _ = fmt.Fprintln(w, b.String()) // Flush keeps the error
		if i > 0 {
			r.Rows[i-1].notes(w, strings.Repeat(" ", widths[0])+gap)
		}
	}
	for _, line := range r.remedies() {
		_, _ = fmt.Fprintln(w, line)
	}
	_, _ = fmt.Fprintln(w, r.Summary())
	return w.Flush()
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
	left := span(r.Cert.NotAfter.Sub(r.Judged))
	if r.Judged.After(r.Cert.NotAfter) {
		left = "-" + left
	}
	return []string{r.State, left, r.Cert.NotAfter.Local().Format(time.DateTime), printable.Clean(name(r.Cert)), place}
}

func (r *Row) notes(w io.Writer, indent string) {
	if r.Err != nil {
		_, _ = fmt.Fprintln(w, indent+printable.Clean(r.Err.Error()))
	}
	for _, f := range r.Findings {
		_, _ = fmt.Fprintln(w, indent+f.Text)
	}
}

// columns computes the widths. Whatever does not fit goes off the place, then
// off the name; the others are short by nature.
func columns(lines [][]string, width int) []int {
	widths := make([]int, len(lines[0]))
	total := len(gap) * (len(widths) - 1)
	for n := range widths {
		for _, cells := range lines {
			widths[n] = max(widths[n], runewidth.StringWidth(cells[n]))
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
func (r *Report) remedies() (out []string) {
	for _, c := range checks {
		for i := range r.Rows {
			if r.Rows[i].has(c.id) {
				out = append(out, fmt.Sprintf("%s: %s (%s)", c.id, c.remedy, c.cites))
				break
			}
		}
	}
	if len(out) > 0 {
		out = append([]string{""}, out...)
	}
	return out
}

func (r *Row) has(check string) bool {
	for _, f := range r.Findings {
		if f.Check == check {
			return true
		}
	}
	return false
}

// Summary is the report in one line.
func (r *Report) Summary() string {
	n := r.tally()
	text := fmt.Sprintf("%d certificates: %d fine, %d to watch, %d critical", n.Certificates, n.Fine, n.Warn, n.Crit)
	if n.Unchecked > 0 {
		text += fmt.Sprintf("; %d could not be checked", n.Unchecked)
	}
	if n.Unjudged > 0 {
		text += fmt.Sprintf("; %d chains not judged: no trust bundle", n.Unjudged)
	}
	return text
}
