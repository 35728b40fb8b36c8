package audit

import (
	"bufio"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/lifetime"
)

const (
	// maxPageRows bounds what a page keeps and holds.
	maxPageRows = 50_000
	// shownRows are in sight at first, and how many more script.js shows at a time.
	shownRows = 500
	// maxPageText is the longest text of a stranger in a page, in bytes.
	maxPageText = 1 << 10
	// lifeSteps is how finely style.css can draw the share of a life.
	lifeSteps = 20
)

//go:embed html
var pageFiles embed.FS

var pageTemplate = template.Must(template.ParseFS(pageFiles, "html/*.gohtml"))

// asHTML writes one page for people that needs nothing else: verdict, what to do,
// timeline, table. What is worst is known at the end, so it keeps what it will
// show, about a kilobyte for each row, of the worst [maxPageRows] only.
type asHTML struct {
	out     io.Writer
	program string
	worst   worst
	rows    []pageRow // at the end, worst first
	tally   tally
}

// pageRow is what a page shows of a row. Every text is printable, on one line and
// without tabs; More has lines of them.
type pageRow struct {
	State, Left, Ends, Name, More, Place string
	Used                                 int // of its life, of lifeSteps
	Notes                                []pageNote
	rank, at                             int // at in the report
	dated                                bool
	left                                 time.Duration
	end                                  time.Time
}

// pageNote is a finding, or why something could not be checked.
type pageNote struct {
	Class, Check, Text string // without a check: the latter
}

// rankNames are classes in style.css and words, by rank.
var rankNames = [...]struct{ class, word string }{
	{"ok", "fine"}, {"warn", "to watch"}, {"unchecked", "not checked"}, {"crit", "critical"},
}

// Class is one of rankNames.
func (r *pageRow) Class() string { return rankNames[r.rank].class }

func newHTML(out io.Writer, to Terminal) Renderer { return &asHTML{out: out, program: to.Program} }

// Row implements [Renderer].
func (h *asHTML) Row(r *Row) error {
	h.tally.count(r)
	h.worst.add(r)
	return nil
}

// End implements [Renderer].
func (h *asHTML) End(s *Summary) error {
	h.rows = h.worst.sorted()
	p, err := h.page(s)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(h.out)
	if err := pageTemplate.ExecuteTemplate(w, "page.gohtml", p); err != nil {
		return err
	}
	return w.Flush()
}

// pagePlace is the last cell of a table.
func (r *Row) pagePlace() string {
	cells := r.cells()
	return pageText(cells[len(cells)-1])
}

// fill adds what does not matter for the order.
func (r *Row) fill(p *pageRow) {
	p.State, p.Notes = r.State, r.pageNotes()
	c := r.Cert
	if c == nil {
		return
	}
	p.dated, p.left, p.Name, p.More = true, c.notAfter.Sub(r.Judged), pageText(c.name), r.pageDetails()
	p.Left, p.Ends = span(p.left), c.notAfter.UTC().Format(pageMinute)
	if p.left < 0 {
		p.Left += " ago"
	}
	if whole := c.notAfter.Sub(c.notBefore); whole > 0 {
		share := float64(r.Judged.Sub(c.notBefore)) / float64(whole)
		p.Used = int(min(1, max(0, share)) * lifeSteps)
	}
}

// Record is the row as text, for script.js and for people without it: a line of
// cells with tabs between them; then one for each note and each detail, which
// begin with a tab. A detail has no further one.
func (r *pageRow) Record() string {
	var b strings.Builder
	b.WriteString(strings.Join([]string{r.Class(), r.State, r.Left, r.Ends, r.Name, r.Place}, "\t"))
	if r.Left != "" {
		fmt.Fprintf(&b, "\t%d/%d used", r.Used, lifeSteps)
	}
	for _, n := range r.Notes {
		b.WriteString("\n\t" + n.Class + "\t" + n.Check + "\t" + n.Text)
	}
	if r.More != "" {
		b.WriteString("\n\t" + strings.ReplaceAll(r.More, "\n", "\n\t"))
	}
	return b.String()
}

func (r *Row) pageNotes() (out []pageNote) {
	if r.Err != nil {
		out = append(out, pageNote{Class: "unchecked", Text: pageText(r.Err.Error())})
	}
	for _, f := range r.Findings {
		out = append(out, pageNote{f.Severity.String(), f.Check, pageText(f.Text)})
	}
	return out
}

// pageDetails are lines about a certificate for whoever opens its row.
func (r *Row) pageDetails() string {
	c := r.Cert
	lines := make([]string, 0, 8)
	add := func(label, text string) {
		if text != "" {
			lines = append(lines, label+": "+pageText(text))
		}
	}
	add("Names", pageList(c.names, ", "))
	add("Issuer", c.issuerName)
	add("Serial", c.serial)
	if !c.partial {
		add("Key", c.key.String())
	}
	add("SHA-256", c.hexFingerprint())
	add("Valid from", c.notBefore.UTC().Format(pageTime))
	if r.renews() {
		from, to := lifetime.RenewalWindow(c.notBefore, c.notAfter)
		add("Renews", "by a program, from "+from.UTC().Format(pageTime)+" to "+to.UTC().Format(pageTime))
	}
	if r.TLS != nil && r.TLS.Version != 0 {
		add("Connection", strings.TrimSpace(protocol(r.TLS)+" "+keyExchange(r.TLS)))
	}
	add("Also in", pageList(r.Also, ", "))
	add("Accepted", pageList(r.Accepted, ", "))
	return strings.Join(lines, "\n")
}

const (
	pageTime   = "2006-01-02 15:04:05 MST"
	pageMinute = "2006-01-02 15:04"
)

// pageList joins as many of a list as a text of a page may have bytes.
func pageList(list []string, between string) string {
	size := 0
	for i, s := range list {
		if size += len(s) + len(between); size > maxPageText*3/4 && i > 0 {
			return fmt.Sprintf("%s and %d more", strings.Join(list[:i], between), len(list)-i)
		}
	}
	return strings.Join(list, between)
}

// pageText makes a text of a stranger fit to be seen, and a field of a record; escaping is up to the template.
func pageText(s string) string {
	cut := ""
	if len(s) > maxPageText {
		s, cut = strings.ToValidUTF8(s[:maxPageText], ""), "…"
	}
	return cell(s) + cut
}

// asset is a file of the page with the source expression that lets it run
// (Content Security Policy level 3 section 2.3.1).
func asset(name string) (text, allowed string, err error) {
	data, err := pageFiles.ReadFile("html/" + name)
	if err != nil {
		return "", "", err
	}
	sum := sha256.Sum256(data)
	return string(data), "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'", nil
}
