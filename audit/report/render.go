package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/audit"
)

// renderer is a row of the table of formats. A new one is a file of its own and
// a row here.
type renderer struct {
	name string
	make func(out io.Writer, to Terminal) audit.Renderer
}

// Terminal is what tables are made for; the zero value is none.
type Terminal struct {
	Width   int // in columns; 0 cuts nothing
	Colour  bool
	Program string // that makes the report, and its version, for whoever reads it as a page
}

var renderers = []renderer{
	{"table", func(out io.Writer, to Terminal) audit.Renderer { return &tableRenderer{out: out, to: to} }},
	{"wide", func(out io.Writer, to Terminal) audit.Renderer {
		return &tableRenderer{out: out, to: Terminal{Colour: to.Colour}, wide: true}
	}},
	{"json", newJSON},
	{"ndjson", newNDJSON},
	{"csv", newCSV},
	{"prom", newPrometheus},
	{"html", newHTML},
	{"sarif", newSARIF},
	{"junit", newJUnit},
	{"cbom", newCBOM},
	{"text", func(out io.Writer, _ Terminal) audit.Renderer { return &textRenderer{out: out} }},
	{"pem", newPEM},
}

// Formats are the names that [New] takes.
func Formats() (out []string) {
	for _, r := range renderers {
		out = append(out, r.name)
	}
	return out
}

// New makes the renderer of a format.
func New(format string, out io.Writer, to Terminal) (audit.Renderer, error) {
	i := slices.IndexFunc(renderers, func(r renderer) bool { return r.name == format })
	if i < 0 {
		return nil, fmt.Errorf("format %q: want one of %s", format, strings.Join(Formats(), ", "))
	}
	return renderers[i].make(out, to), nil
}

// nameAndVersion takes [Terminal.Program] apart.
func nameAndVersion(program string) (name, version string) {
	name, version, _ = strings.Cut(program, " ")
	return cmp.Or(name, "artstore-pki"), version
}

// interrupted is for the reader of a report that is not complete.
const interrupted = "INTERRUPTED: not all was looked at"
