package report

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/printable"
)

// The widths below which a column is not cut, in cells of a terminal.
const (
	// fairName is the width down to which names are cut before places are.
	fairName   = 24
	leastName  = 16
	leastPlace = 24
	gap        = "  "
)

// tableRenderer writes one line for each row and one for each finding under it, worst
// first, then what to do about them, and a summary. The order is known at the end only, so
// it keeps what it will print: about 300 bytes for each row.
type tableRenderer struct {
	out io.Writer
	to  Terminal
	// wide adds columns and findings of severity Info, and cuts nothing.
	wide  bool
	lines []tableLine
	// found has the ids of the checks whose remedy is printed.
	found map[string]bool
}

var (
	tableHead = []string{"STATE", "LEFT", "ENDS", "NAME", "PLACE"}
	wideHead  = []string{"STATE", "LEFT", "ENDS", "NAME", "NAMES", "ISSUER", "SERIAL", "KEY", "SIGNATURE", "PLACE"}
)

// colours of a state by its rank (ECMA-48 SGR): green, yellow, magenta, red and bold. The
// word of the state says the same, for those who do not see colours.
var colours = [...]string{"\x1b[32m", "\x1b[33m", "\x1b[35m", "\x1b[1;31m"}

const noColour = "\x1b[0m"

type tableLine struct {
	// cells end with the place.
	cells []string
	// more is written behind the place, and is never cut.
	more  string
	notes []string
	rank  int
	end   time.Time
	// path is true if the place is the path of a file.
	path bool
}

// place is the last cell.
func (l *tableLine) place() string { return l.cells[len(l.cells)-1] }

// Row implements [audit.Renderer].
func (t *tableRenderer) Row(r *audit.Row) error {
	if t.found == nil {
		t.found = map[string]bool{}
	}
	least := audit.Warn
	if t.wide {
		least = audit.Info
	}
	for _, f := range r.Findings {
		t.found[f.Check] = t.found[f.Check] || f.Severity >= least
	}
	cells := cellsOf(r)
	if t.wide {
		cells = slices.Insert(cells, len(cells)-1, wideCellsOf(r)...)
	}
	place, more := placeOf(r, t.to.Width > 0)
	cells[len(cells)-1] = place
	t.lines = append(t.lines, tableLine{cells, more, notesOf(r, least), r.Rank(), r.End(), r.InFile()})
	return nil
}

// End implements [audit.Renderer].
func (t *tableRenderer) End(s *audit.Summary) error {
	slices.SortStableFunc(t.lines, func(a, b tableLine) int {
		return cmp.Or(cmp.Compare(b.rank, a.rank), a.end.Compare(b.end), cmp.Compare(a.place(), b.place()))
	})
	w := bufio.NewWriter(t.out)
	put := func(indent, text string) { // Flush keeps the error
		for _, line := range wrapped(text, t.to.Width-len(indent)) {
			_, _ = fmt.Fprintln(w, indent+line)
		}
	}
	if text := s.Moment(timeOfTable, time.Local); text != "" {
		put("", text)
	}
	head := tableLine{cells: slices.Clone(tableHead)}
	if t.wide {
		head.cells = slices.Clone(wideHead)
	}
	lines := slices.Insert(t.lines, 0, head)
	widths, shared := fit(lines, t.to.Width)
	if shared != "" {
		put("", fmt.Sprintf("%s is %s", elided, shared))
	}
	indent := strings.Repeat(" ", widths[0]) + gap
	for i, l := range lines {
		_, _ = fmt.Fprintln(w, l.text(widths, t.to.Colour && i > 0))
		for _, note := range l.notes {
			put(indent, note)
		}
	}
	for _, line := range t.remedies() {
		put("", line)
	}
	for _, line := range leftOutLines(s) {
		put("", line)
	}
	if !s.Complete {
		put("", interrupted)
	}
	put("", s.String())
	return w.Flush()
}

// wrapped breaks a text between words into lines that are at most width cells wide. Lines
// after the first are indented. A word that is wider than the line is broken anywhere. A
// width that leaves no room for the indentation, such as 0, breaks nothing.
func wrapped(text string, width int) (out []string) {
	indent := ""
	for width > len(gap) && runewidth.StringWidth(text) > width {
		line := runewidth.Truncate(text, width, "")
		if at := strings.LastIndexByte(text[:min(len(text), len(line)+1)], ' '); at > 0 {
			line = text[:at]
		}
		if line == "" { // a character that is wider than the terminal
			break
		}
		out = append(out, indent+line)
		text = strings.TrimPrefix(text[len(line):], " ")
		if indent == "" {
			indent = gap
			width -= len(gap)
		}
	}
	return append(out, indent+text)
}

// text is the line of a row, with its state in colour or not.
func (l *tableLine) text(widths []int, coloured bool) string {
	var b strings.Builder
	last := len(l.cells) - 1
	for n, cell := range l.cells[:last] {
		if widths[n] == 0 {
			continue
		}
		cell = runewidth.FillRight(runewidth.Truncate(cell, widths[n], "…"), widths[n])
		if n == 0 && coloured {
			cell = colours[l.rank] + cell + noColour
		}
		_, _ = b.WriteString(cell + gap) // never fails
	}
	// The end of a path says more than its beginning.
	return b.String() + cutLeft(l.cells[last], max(1, widths[last]-runewidth.StringWidth(l.more))) + l.more
}

// timeOfTable has no seconds: the column before it says how much time is left.
const timeOfTable = "2006-01-02 15:04"

// cellsOf returns the cells of a narrow table. A document has dates only if it ends.
func cellsOf(r *audit.Row) []string {
	place, more := placeOf(r, false)
	d := r.Document
	if r.Cert == nil && d != nil && !d.Until.IsZero() {
		left := humantime.Short(humantime.Between(r.Judged, d.Until))
		if r.Judged.After(d.Until) {
			left = "-" + left
		}
		return []string{r.State, left, d.Until.Local().Format(timeOfTable), printable.Cell(printable.Shorten(d.Name, maxName)), place + more}
	}
	if r.Cert == nil && d != nil {
		return []string{r.State, "-", "-", printable.Cell(printable.Shorten(d.Name, maxName)), place + more}
	}
	if r.Cert == nil {
		return []string{r.State, "-", "-", "-", place + more}
	}
	left := humantime.Short(humantime.Between(r.Judged, r.Cert.NotAfter))
	if r.Judged.After(r.Cert.NotAfter) {
		left = "-" + left
	}
	return []string{r.State, left, r.Cert.NotAfter.Local().Format(timeOfTable), printable.Cell(printable.Shorten(r.Cert.Name, maxName)), place + more}
}

// placeOf returns the place of a row, and a text that distinguishes it from other rows of
// that place. brief makes both short, for a terminal.
func placeOf(r *audit.Row, brief bool) (place, more string) {
	if r.Block > 1 {
		more = fmt.Sprintf("#%d", r.Block)
	}
	switch n := len(r.Also); {
	case n > 0 && brief:
		more += fmt.Sprintf(" +%d", n)
	case n > 0:
		more += fmt.Sprintf(" and %d more", n)
	}
	// The replicas of a service have the same names and differ in the serial number.
	if r.InRecord() && r.Cert != nil {
		serial := printable.Shorten(r.Cert.Serial, maxName)
		if brief && len(serial) > briefSerial {
			serial = serial[:briefSerial] + "…"
		}
		more += " " + serial
	}
	return printable.Cell(shortenPlace(r.Place)), more
}

// briefSerial is enough of a serial number to tell replicas apart.
const briefSerial = 10

// wideCellsOf returns the cells that only a wide table has. They stand before the place.
func wideCellsOf(r *audit.Row) []string {
	c := r.Cert
	if c == nil {
		return []string{"-", "-", "-", "-", "-"}
	}
	out := []string{shortenList(c.Names, ","), printable.Shorten(c.IssuerName, maxName), printable.Shorten(c.Serial, maxName), c.Key.String(), c.SignatureName}
	for i := range out {
		out[i] = printable.Cell(cmp.Or(out[i], "-"))
	}
	return out
}

// notesOf returns the lines under a row: the error, and the findings of at least the
// severity.
func notesOf(r *audit.Row, least audit.Severity) (out []string) {
	if r.Err != nil {
		out = append(out, printable.Cell(printable.Shorten(r.Err.Error(), maxPhrase)))
	}
	for _, f := range r.Findings {
		if f.Severity >= least {
			out = append(out, printable.Cell(printable.Shorten(f.Text, maxPhrase)))
		}
	}
	return out
}

// elided stands for the directories that all files of a table have in common.
const elided = "…/"

// columns of every table.
const (
	columnEnds = 2
	columnName = 3
)

// fit computes the widths of the columns, in cells of a terminal; a column of width 0 is
// left out. A table that is too wide loses, in this order: the directory that all paths
// share, which is returned; the time of day; the date, because the column before it says
// what is left; the end of long names; the beginning of places; the end of names. The
// other columns are always short.
func fit(lines []tableLine, width int) (widths []int, shared string) {
	widths = measure(lines)
	if width <= 0 || sum(widths) <= width {
		return widths, ""
	}
	if shared = commonDirectory(lines); shared != "" {
		for i := range lines {
			if l := &lines[i]; l.path && i > 0 {
				l.cells[len(l.cells)-1] = elided + strings.TrimPrefix(l.place(), shared)
			}
		}
		widths = measure(lines)
	}
	for _, room := range []int{len(time.DateOnly), 0} {
		if sum(widths) > width {
			widths[columnEnds] = room
			for i := range lines {
				ends := &lines[i].cells[columnEnds]
				*ends = (*ends)[:min(len(*ends), room)]
			}
		}
	}
	for _, c := range []struct{ column, least int }{{columnName, fairName}, {len(widths) - 1, leastPlace}, {columnName, leastName}} {
		widths[c.column] -= max(0, min(sum(widths)-width, widths[c.column]-c.least))
	}
	return widths, shared
}

// measure returns the width of the widest cell of each column.
func measure(lines []tableLine) []int {
	widths := make([]int, len(lines[0].cells))
	for _, l := range lines {
		for n, cell := range l.cells {
			width := runewidth.StringWidth(cell)
			if n == len(l.cells)-1 {
				width += runewidth.StringWidth(l.more)
			}
			widths[n] = max(widths[n], width)
		}
	}
	return widths
}

// sum returns the width of a line, with the gaps between its columns.
func sum(widths []int) (total int) {
	for _, w := range widths {
		if w > 0 {
			total += w + len(gap)
		}
	}
	return total - len(gap)
}

// commonDirectory returns the directory with which all paths of a table begin, with its
// slash. It is "" if there are fewer than two paths, or if it is no longer than the text
// that would stand for it.
func commonDirectory(lines []tableLine) string {
	shared, paths := "", 0
	for i := range lines {
		if !lines[i].path {
			continue
		}
		place := lines[i].place()
		if paths++; paths == 1 {
			shared = place
		}
		n := 0
		for n < min(len(shared), len(place)) && shared[n] == place[n] {
			n++
		}
		shared = shared[:n]
	}
	shared = shared[:strings.LastIndexByte(shared, '/')+1]
	if paths < 2 || len(shared) <= len(elided) {
		return ""
	}
	return shared
}

// cutLeft cuts the beginning of a text that is wider than width.
func cutLeft(s string, width int) string {
	over := runewidth.StringWidth(s) - width
	if over <= 0 {
		return s
	}
	return runewidth.TruncateLeft(s, over+1, "…")
}

// remedies says what to do, once for each check that found something.
func (t *tableRenderer) remedies() (out []string) {
	for _, c := range audit.Checks() {
		if t.found[c.Check] {
			out = append(out, fmt.Sprintf("%s: %s (%s)", c.Check, c.Remedy, c.Cites))
		}
	}
	if len(out) > 0 {
		out = append([]string{""}, out...)
	}
	return out
}

// leftOutLines says what the audit left out: how many files for each reason, and below
// that those paths that the summary kept.
func leftOutLines(s *audit.Summary) (out []string) {
	var parts []string
	for _, l := range s.LeftOut {
		parts = append(parts, fmt.Sprintf("%s (%d)", l.Reason, l.Count))
		for i, path := range l.Paths {
			if i == 0 {
				out = append(out, l.Reason+":")
			}
			out = append(out, "  "+printable.Cell(path))
		}
		if n := l.Count - len(l.Paths); n > 0 && len(l.Paths) > 0 {
			out = append(out, fmt.Sprintf("  and %d more", n))
		}
	}
	if len(parts) == 0 {
		return nil
	}
	return append([]string{"left out: " + strings.Join(parts, ", ")}, out...)
}
