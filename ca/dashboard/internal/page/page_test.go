package page_test

import (
	"bytes"
	"encoding/csv"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/artstore/artstore-pki/ca/dashboard/internal/page"
)

// hostile are texts that would be markup, end an attribute, run as a formula, colour a terminal or turn
// the text around them.
var hostile = []string{
	"<script>alert(1)</script>", "</script><script>alert(1)//", `" onmouseover="alert(1)`, "' onload='alert(1)", "</title><img src=x onerror=alert(1)>",
	"javascript:alert(1)", "]]><svg onload=alert(1)>", "<!-- ", "</style></table></svg><p>", "a\x1b[31m\x07\x00b", "\u202egpj.exe\u2066", "{{.}}`${1}`", "caf\xe9",
	"=HYPERLINK(1)", strings.Repeat("<", 10_000), strings.Repeat("\u202e", 10_000),
}

// sample has a text in each place that takes one.
func sample(text string) *page.Page {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	cells := []page.Cell{{Text: text, Class: page.OK, More: text}, {Text: text, Mono: true, Link: "/certificate/1"}, page.At(now)}
	return &page.Page{
		Title: text, Path: "/services", Class: page.Warn, Rest: []string{text}, Now: now, Program: text,
		Tiles: []page.Link{{Class: page.OK, Count: "1", Text: "in use", To: "/services"}},
		Sections: []page.Section{{
			ID: "one", Title: text, Text: text, Notes: []page.Link{{Class: page.Crit, Text: text, To: "/log"}}, Facts: []page.Fact{{Name: "Fact", Cell: cells[0]}},
			Form:  &page.Form{Action: "/services", Label: "Service", Name: "service", Value: text, Choices: []page.Link{{Text: "Live", To: "/services", On: true}}, Keep: []page.Fact{{Name: "show", Cell: page.Text(text)}}},
			Chart: &page.Chart{Caption: "Ends.", Series: []string{"end"}, Classes: []string{page.Info}, Bars: []page.Bar{{Label: "03:00", Parts: []int64{4}}}, From: "now", To: "later"},
			Table: &page.Table{Caption: text, Columns: []string{"A", "B", "C"}, Rows: [][]page.Cell{cells}, CSV: "/csv/services", Next: "/services?after=1.2", First: "/services"},
		}},
	}
}

// shape returns elements and names of attributes of a page, without its texts.
func shape(t *testing.T, data []byte) (out []string) {
	t.Helper()
	doc, err := html.Parse(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for n := range doc.Descendants() {
		if n.Type == html.ElementNode {
			element := n.Data
			for _, a := range n.Attr {
				element += " " + a.Key
			}
			out = append(out, element)
		}
	}
	return out
}

func write(t *testing.T, p *page.Page) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := page.HTML(&b, p); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestHostileTexts expects that a page with hostile texts has the elements of one with harmless ones,
// and that texts are bounded.
func TestHostileTexts(t *testing.T) {
	want := shape(t, write(t, sample("harmless")))
	for _, text := range hostile {
		data := write(t, sample(text))
		if got := shape(t, data); !slices.Equal(got, want) {
			t.Errorf("%.40q makes other elements", text)
		}
		_, body, _ := bytes.Cut(data, []byte("<body>"))
		if i := bytes.IndexFunc(body, func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f || r == '\u202e' || r == '\u2066' }); i >= 0 {
			t.Errorf("%.40q: %q", text, body[max(0, i-20):i+20])
		}
		if bytes.Contains(data, []byte("ZgotmplZ")) {
			t.Errorf("%.40q: a place that takes no text", text)
		}
		if len(body) > 60_000 {
			t.Errorf("%.40q: %d bytes", text, len(body))
		}
	}
}

// TestHostileCSV expects that a table has as many lines and cells with any text, and no formula.
func TestHostileCSV(t *testing.T) {
	for _, text := range hostile {
		var b bytes.Buffer
		if err := page.CSV(&b, sample(text).Sections[0].Table); err != nil {
			t.Fatal(err)
		}
		lines, err := csv.NewReader(&b).ReadAll()
		if err != nil || len(lines) != 2 || len(lines[1]) != 3 || lines[1][2] != "2026-01-02T03:04:05Z" {
			t.Fatalf("%.40q: %v %v", text, lines, err)
		}
		if cell := lines[1][0]; strings.ContainsAny(cell[:1], "=+-@\t\r") || strings.ContainsAny(cell, "\x00\x1b\n\r") || len(cell) > 6*page.MaxText+4 {
			t.Errorf("%.40q became %.80q", text, cell)
		}
	}
}

// TestPolicy expects that a page has nothing that its policy would have to allow but its style, and that the
// policy allows that.
func TestPolicy(t *testing.T) {
	data := string(write(t, sample("x")))
	for _, forbidden := range []string{"<script", "style=\"", " onclick", "<img", "<iframe", "<object", "http://", "https://", "url(", "@import"} {
		if strings.Contains(data, forbidden) {
			t.Errorf("the page has %q", forbidden)
		}
	}
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(data)
	if style == nil || style[1] != page.Style() {
		t.Error("the style is not the one that the policy allows")
	}
	if p := page.Policy(); !strings.HasPrefix(p, "default-src 'none'; style-src 'sha256-") || strings.Contains(p, "unsafe") {
		t.Error(p)
	}
}

// TestChart expects that a chart says the same as its table, and that bars stay in the drawing.
func TestChart(t *testing.T) {
	c := &page.Chart{Caption: "c", Series: []string{"a", "b"}, Classes: []string{page.OK, page.Warn}, Bars: []page.Bar{
		{"1", []int64{1, 2}}, {"2", []int64{0, 0}}, {"3", []int64{1_000_000, 1}}, {"4", []int64{0, 7}},
	}}
	if n := c.Numbers(); len(n.Rows) != 3 || n.Rows[1][1].Text != "1000000" {
		t.Errorf("%+v", n)
	}
	if l := c.Legend(); l[0].Count != "1000001" || l[1].Count != "10" {
		t.Errorf("%+v", l)
	}
	rects := c.Rects()
	if len(rects) != 5 {
		t.Errorf("%d parts", len(rects))
	}
	for _, r := range rects {
		if r.Y < 0 || r.Height < 0 || r.Y+r.Height > c.Height() || r.X+r.Width > c.Width() {
			t.Errorf("%+v is outside", r)
		}
	}
	if empty := (&page.Chart{}); empty.Width() != 1 || empty.Most() != 0 || len(empty.Rects()) != 0 {
		t.Error("an empty chart")
	}
}
