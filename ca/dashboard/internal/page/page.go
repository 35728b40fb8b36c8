// Package page writes pages and tables for people: what a page of the dashboard consists of, as
// HTML that loads nothing and runs nothing, and each of its tables as CSV.
//
//	err := page.HTML(w, &page.Page{Title: "Services", Sections: []page.Section{{ID: "all", Title: "Lineages", Table: &table}}})
//	err := page.CSV(w, &table)
//
// Invariants:
//
//   - All texts may be of strangers. Each is made printable and is cut at [MaxText] bytes where it is
//     written, and html/template escapes it (TestHostileTexts).
//   - A page allows its own style and nothing else by [Policy]: no script, no image, no frame
//     (TestPolicy).
//   - What a picture shows is also there as a table (TestChart).
package page

import (
	"bufio"
	"embed"
	"encoding/csv"
	"html/template"
	"io"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/internal/webpage"
)

// MaxText bounds each text, in bytes. In HTML a byte may take five.
const MaxText = 120

// Classes of states, as the style has them.
const (
	OK   = "ok"
	Warn = "warn"
	Crit = "crit"
	Info = "info"
	None = "nothing"
)

// Page is one page. Empty fields are left out.
type Page struct {
	Title    string
	Path     string // of the page, to mark it in the navigation
	Class    string // of the heading
	Rest     []string
	Tiles    []Link
	Sections []Section
	Now      time.Time // of the data
	Program  string
}

// Link is a sentence, a number with a word, or the name of a view. It leads somewhere if To is set.
type Link struct {
	Class, Count, Text, To string
	On                     bool // it leads to where the reader is
}

// Section is a part of a page, with a heading.
type Section struct {
	ID, Title string
	Notes     []Link
	Facts     []Fact
	Chart     *Chart
	Form      *Form
	Table     *Table
	Text      string // as it is, such as a proof
}

// Fact is a name with a value.
type Fact struct {
	Name string
	Cell Cell
}

// Table is a table of which one page is shown.
type Table struct {
	Caption string
	Columns []string
	Rows    [][]Cell // as many as there are columns in each
	Empty   string   // said instead of a table without rows
	CSV     string   // address of the same as CSV
	First   string   // address of the first page, "" on it
	Next    string   // address of the next page, "" on the last
}

// Cell is a value: a text, or a moment.
type Cell struct {
	Text  string
	More  string // below the text, smaller; CSV leaves it out
	Link  string
	Class string
	Mono  bool
	Time  time.Time // if it is set, it is written in place of Text, and Text is ignored in CSV
}

// Form asks for a filter of the page.
type Form struct {
	Action, Label, Name, Value, Hint string
	Choices                          []Link // links beside it
	Keep                             []Fact // hidden fields
}

// Text is a cell with a text.
func Text(s string) Cell { return Cell{Text: s} }

// At is a cell with a moment; the zero one is empty.
func At(t time.Time) Cell { return Cell{Time: t} }

//go:embed html
var files embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{"text": clean, "lines": lines, "utc": utc, "rfc": rfc}).ParseFS(files, "html/*.gohtml"))

func clean(s string) string { return printable.Shorten(printable.Cell(s), MaxText) }

// lines is clean for a text of several lines.
func lines(s string) string {
	list := strings.Split(printable.Shorten(s, maxLines), "\n")
	for i := range list {
		list[i] = clean(list[i])
	}
	return strings.Join(list, "\n")
}

// maxLines bounds a text of several lines, in bytes.
const maxLines = 4 << 10

func utc(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

func rfc(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// style is the style of all pages.
func style() string {
	own, err := files.ReadFile("html/style.css")
	if err != nil {
		panic(err) // it is part of the program
	}
	return webpage.BaseStyle + string(own)
}

// Policy is the Content Security Policy of all pages (CSP level 3): the style by its hash, forms that
// lead back here, and nothing else.
func Policy() string {
	return "default-src 'none'; style-src " + webpage.HashSource(style()) + "; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
}

// HTML writes a page.
func HTML(w io.Writer, p *Page) error {
	out := bufio.NewWriter(w)
	data := struct {
		*Page
		Style template.CSS
		Nav   []Link
	}{p, template.CSS(style()), nav(p.Path)} //nolint:gosec // G203: files of this program, not a stranger's text
	if err := templates.ExecuteTemplate(out, "page.gohtml", data); err != nil {
		return err
	}
	return out.Flush()
}

// nav lists all pages, the present one marked.
func nav(path string) []Link {
	list := []Link{
		{Text: "Overview", To: "/"}, {Text: "Services", To: "/services"}, {Text: "Issuance", To: "/issuance"},
		{Text: "Roots", To: "/trust"}, {Text: "Revocations", To: "/revocations"}, {Text: "Log", To: "/log"}, {Text: "Search", To: "/search"},
	}
	for i := range list {
		list[i].On = list[i].To == path
	}
	return list
}

// CSV writes a table for spreadsheets (RFC 4180), the names of the columns first. No cell can be read
// as a formula.
func CSV(w io.Writer, t *Table) error {
	out := csv.NewWriter(w)
	out.UseCRLF = true
	_ = out.Write(t.Columns) // Error keeps the error
	for _, r := range t.Rows {
		line := make([]string, len(r))
		for i, c := range r {
			if line[i] = webpage.CSVCell(printable.Shorten(c.Text, MaxText)); !c.Time.IsZero() {
				line[i] = rfc(c.Time)
			}
		}
		_ = out.Write(line)
	}
	out.Flush()
	return out.Error()
}
