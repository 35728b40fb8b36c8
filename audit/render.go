package audit

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Renderer writes a report. Row is called for each row, in the order of the
// report, then End once; an error of Row ends the run. A renderer keeps nothing of
// a row that it has written: reports are longer than memory.
type Renderer interface {
	Row(r *Row) error
	End(s *Summary) error
}

// renderer is a row of the table of formats. A new one is a file of its own and
// a row here.
type renderer struct {
	name string
	make func(out io.Writer, to Terminal) Renderer
}

// Terminal is what tables are made for; the zero value is none.
type Terminal struct {
	Width   int // in columns; 0 cuts nothing
	Colour  bool
	Program string // that makes the report, and its version, for whoever reads it as a page
}

var renderers = []renderer{
	{"table", func(out io.Writer, to Terminal) Renderer { return &table{out: out, to: to} }},
	{"wide", func(out io.Writer, to Terminal) Renderer {
		return &table{out: out, to: Terminal{Colour: to.Colour}, wide: true}
	}},
	{"json", newJSON},
	{"ndjson", newNDJSON},
	{"csv", newCSV},
	{"prom", newPrometheus},
	{"html", newHTML},
	{"text", func(out io.Writer, _ Terminal) Renderer { return &explanation{out: out} }},
	{"pem", newPEM},
}

// Formats are the names that [NewRenderer] takes.
func Formats() (out []string) {
	for _, r := range renderers {
		out = append(out, r.name)
	}
	return out
}

// NewRenderer makes the renderer of a format.
func NewRenderer(format string, out io.Writer, to Terminal) (Renderer, error) {
	i := slices.IndexFunc(renderers, func(r renderer) bool { return r.name == format })
	if i < 0 {
		return nil, fmt.Errorf("format %q: want one of %s", format, strings.Join(Formats(), ", "))
	}
	return renderers[i].make(out, to), nil
}
