package ui

import (
	"io"
	"strings"
	"unicode/utf8"

	"github.com/artstore/artstore-pki/internal/printable"
)

const tableGap = 2 // blanks between two columns

// Table prints rows in columns that are as wide as their widest cell. Cells are
// cleaned of control characters, and a line never ends in blanks.
type Table struct {
	out    io.Writer
	widths []int // in runes; they only grow
	rows   [][]string
}

// NewTable returns a table on standard output. Its first row is the heading;
// without columns there is none.
func (u *UI) NewTable(heading ...string) *Table {
	t := &Table{out: u.Out}
	if len(heading) > 0 {
		t.Row(heading...)
	}
	return t
}

// Row adds a row. It is printed by the next Flush.
func (t *Table) Row(cells ...string) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		row[i] = strings.ReplaceAll(printable.Clean(cell), "\t", `\u0009`)
	}
	t.grow(row)
	t.rows = append(t.rows, row)
}

// Fit makes the columns wide enough for these cells and prints nothing: for rows
// that follow after a Flush.
func (t *Table) Fit(cells ...string) { t.grow(cells) }

// grow makes the columns at least as wide as the cells of one row.
func (t *Table) grow(cells []string) {
	for i, cell := range cells {
		if i == len(t.widths) {
			t.widths = append(t.widths, 0)
		}
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
	}
}

// Flush prints the rows that were added since the last Flush. Later rows are
// aligned with them: columns never become narrower.
func (t *Table) Flush() error {
	var b strings.Builder
	for _, row := range t.rows {
		blanks := 0
		for i, cell := range row {
			if cell != "" {
				b.WriteString(strings.Repeat(" ", blanks) + cell)
				blanks = 0
			}
			blanks += t.widths[i] - utf8.RuneCountInString(cell) + tableGap
		}
		b.WriteByte('\n')
	}
	t.rows = nil
	_, err := io.WriteString(t.out, b.String())
	return err
}
