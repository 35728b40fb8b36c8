package ui

import (
	"strings"
	"testing"
)

// Columns are aligned over pages, foreign text cannot end a cell or a line, and
// no line ends in blanks.
func TestTable(t *testing.T) {
	var out strings.Builder
	table := New(Streams{Out: &out}).NewTable("NAME", "STATE", "WHY")
	table.Fit("", "a state", "")
	table.Row("ä", "", "")
	table.Row("long name", "x", "tab\tline\nend")
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
	table.Row("b", "y", "z")
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
	want := "NAME       STATE    WHY\n" +
		"ä\n" +
		"long name  x        tab\\u0009line\\u000aend\n" +
		"b          y        z\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
