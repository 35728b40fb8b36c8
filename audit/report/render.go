package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/audit"
)

// renderer is a row of the table of formats. A new format is a file of its own and a row
// in renderers.
type renderer struct {
	name string
	make func(out io.Writer, to Terminal) audit.Renderer
}

// Terminal describes where a table is shown. The zero value is a file: nothing is cut or
// coloured.
type Terminal struct {
	// Width is in columns; 0 cuts nothing.
	Width  int
	Colour bool
	// Program is the program that makes the report, and its version behind a blank.
	Program string
}

// renderers are all formats, in the order in which [Formats] and the help list them.
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

// Formats returns the names that [New] takes.
func Formats() (out []string) {
	for _, r := range renderers {
		out = append(out, r.name)
	}
	return out
}

// New returns the renderer of a format. It writes to out, and does not close it. The error
// names the formats there are.
func New(format string, out io.Writer, to Terminal) (audit.Renderer, error) {
	i := slices.IndexFunc(renderers, func(r renderer) bool { return r.name == format })
	if i < 0 {
		return nil, fmt.Errorf("format %q: want one of %s", format, strings.Join(Formats(), ", "))
	}
	return renderers[i].make(out, to), nil
}

// nameAndVersion splits [Terminal.Program].
func nameAndVersion(program string) (name, version string) {
	name, version, _ = strings.Cut(program, " ")
	return cmp.Or(name, "artstore-pki"), version
}

// interrupted is a line in reports that are not complete.
const interrupted = "INTERRUPTED: not all was looked at"
