package report

import (
	"bufio"
	"embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/internal/webpage"
)

const (
	// maxPageRows bounds the rows that a page keeps and shows. The
	// verdict counts all rows.
	maxPageRows = 50_000
	// shownRows is the number of rows that are visible at first, and the number that
	// script.js adds at a time.
	shownRows = 500
	// maxPageText bounds a text from a certificate or a path in a page, in bytes.
	maxPageText = 1 << 10
	// lifeSteps is the number of steps in which style.css draws the used part of a
	// lifetime: the policy of the page forbids style attributes.
	lifeSteps = 20
)

//go:embed html
var pageFiles embed.FS

var pageTemplate = template.Must(template.ParseFS(pageFiles, "html/*.gohtml"))

// htmlRenderer writes one page for people that loads nothing else: verdict, what to do,
// timeline, table. A certificate is one row with all its places. The worst rows are known
// at the end only, so the renderer keeps what it will show, about a kilobyte for each row,
// of the worst [maxPageRows].
type htmlRenderer struct {
	out     io.Writer
	program string
	worst   worstRows
	rows    []pageRow // at the end, worst first
	tally   counts
}

// pageRow has the texts that a page shows for a row. Each text is printable, on one line and
// without tabs; More has several lines of them. See Record for why.
type pageRow struct {
	State, Left, Ends, Name, More, Place string
	// Used is the part of the lifetime that is over, from 0 to lifeSteps.
	Used  int
	Notes []pageNote
	// at is the number of the row in the report, so that the order is total.
	rank, at      int
	dated, renews bool
	// id is set if dated is, that is for certificates.
	id cert.ID
	// also has the further places of a certificate.
	also []string
	left humantime.Seconds
	end  time.Time
}

// pageNote is a finding, or the reason why a row could not be checked. The latter has no
// Check.
type pageNote struct {
	Class, Check, Text string
	// Place is where the note applies, for a row with several places, and more is the number
	// of further places where it applies too.
	Place string
	more  int
}

// where returns the place of a note, and how many more there are.
func (n *pageNote) where() string {
	if n.more == 0 {
		return n.Place
	}
	return fmt.Sprintf("%s and %d more", n.Place, n.more)
}

// rankNames has, for each rank from the mildest to the worst, the class in style.css and
// the word for people.
var rankNames = [...]struct{ class, word string }{
	{"ok", "fine"}, {"warn", "to watch"}, {"unchecked", "not checked"}, {"crit", "critical"},
}

// Class is one of rankNames.
func (r *pageRow) Class() string { return rankNames[r.rank].class }

func newHTML(out io.Writer, to Terminal) audit.Renderer {
	return &htmlRenderer{out: out, program: to.Program}
}

// Row implements [audit.Renderer].
func (h *htmlRenderer) Row(r *audit.Row) error {
	h.tally.count(r)
	h.worst.add(r)
	return nil
}

// End implements [audit.Renderer].
func (h *htmlRenderer) End(s *audit.Summary) error {
	h.rows = merged(h.worst.sorted())
	p, err := h.buildPage(s)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(h.out)
	if err := pageTemplate.ExecuteTemplate(w, "page.gohtml", p); err != nil {
		return err
	}
	return w.Flush()
}

// merged joins the rows of each certificate into one: the first, which is the worst,
// with the places and the notes of the others. It writes into the array of rows.
func merged(rows []pageRow) []pageRow {
	first := map[cert.ID]int{}
	out := rows[:0]
	for _, r := range rows {
		at, known := first[r.id]
		if !r.dated || !known {
			if r.dated {
				first[r.id] = len(out)
			}
			out = append(out, r)
			continue
		}
		one := &out[at]
		one.also = append(one.also, r.Place)
		for _, n := range r.Notes {
			same := slices.IndexFunc(one.Notes, func(o pageNote) bool { return o.Class == n.Class && o.Check == n.Check && o.Text == n.Text })
			switch {
			case same >= 0:
				one.Notes[same].more++
			case len(one.Notes) < maxNotes:
				one.Notes = append(one.Notes, n)
			}
		}
	}
	for i := range out {
		if one := &out[i]; len(one.also) > 0 {
			one.More += "\nAlso in: " + pageText(pageList(one.also, ", "))
			one.Place += fmt.Sprintf(" and %d more", len(one.also))
		}
	}
	return out
}

// maxNotes bounds what one row of a page says of its certificate.
const maxNotes = 100

// pagePlace returns the place of a row as the last cell of a table has it.
func pagePlace(r *audit.Row) string {
	cells := cellsOf(r)
	return pageText(cells[len(cells)-1])
}

// fillPageRow fills in the fields on which the order does not depend. It is called only for
// rows that have a place in the page.
func fillPageRow(r *audit.Row, p *pageRow) {
	p.State, p.Notes = r.State, pageNotes(r)
	c := r.Cert
	if c == nil {
		return
	}
	p.dated, p.renews, p.id = true, r.AutoRenewed(), c.ID()
	p.left, p.Name, p.More = humantime.Between(r.Judged, c.NotAfter), pageText(c.Name), pageDetails(r)
	p.Left, p.Ends = humantime.Short(p.left), c.NotAfter.UTC().Format(pageMinute)
	if p.left < 0 {
		p.Left += " ago"
	}
	if whole := humantime.Between(c.NotBefore, c.NotAfter); whole > 0 {
		share := float64(humantime.Between(c.NotBefore, r.Judged)) / float64(whole)
		p.Used = int(min(1, max(0, share)) * lifeSteps)
	}
}

// Record is the row as text. script.js sorts and filters these texts, and people without
// scripts read them. The first line has the cells of cellsOf with tabs between them. Then
// comes a line for each note and each detail, which begins with a tab. A note has two
// tabs more, a detail none.
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

// pageNotes returns the notes of a row: its error, then its findings.
func pageNotes(r *audit.Row) (out []pageNote) {
	if r.Err != nil {
		out = append(out, pageNote{Class: "unchecked", Text: pageText(r.Err.Error()), Place: pagePlace(r)})
	}
	for _, f := range r.Findings {
		out = append(out, pageNote{Class: f.Severity.String(), Check: f.Check, Text: pageText(f.Text), Place: pagePlace(r)})
	}
	return out
}

// pageDetails returns the lines that a reader sees after opening the row of a certificate.
func pageDetails(r *audit.Row) string {
	c := r.Cert
	lines := make([]string, 0, 8)
	add := func(label, text string) {
		if text != "" {
			lines = append(lines, label+": "+pageText(text))
		}
	}
	add("Names", pageList(c.Names, ", "))
	add("Issuer", c.IssuerName)
	add("Serial", c.Serial)
	add("Key", c.Key.String())
	add("Signature", c.SignatureName)
	add("SHA-256", c.HexFingerprint())
	add("Valid from", c.NotBefore.UTC().Format(pageTime))
	if r.AutoRenewed() {
		from, to := lifetime.RenewalWindow(c.NotBefore, c.NotAfter)
		add("Renews", "by a program, from "+from.UTC().Format(pageTime)+" to "+to.UTC().Format(pageTime))
	}
	if r.TLS != nil && r.TLS.Version != 0 {
		add("Connection", strings.TrimSpace(r.Protocol()+" "+r.KeyExchange()))
	}
	if !r.Stale.IsZero() {
		add("Last read", r.Stale.UTC().Format(pageTime)+"; its place cannot be read now")
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

// pageText makes a text from a certificate or a path printable and short, and without
// tabs. It does not escape for HTML: html/template does, by context.
func pageText(s string) string {
	return printable.Cell(printable.Shorten(s, maxPageText))
}

// asset returns a file of the page, after begin, and the source expression by which the policy of
// the page allows it. Nothing else runs in the page, even if a text got past the escaping.
func asset(begin, name string) (text, allowed string, err error) {
	data, err := pageFiles.ReadFile("html/" + name)
	if err != nil {
		return "", "", err
	}
	text = begin + string(data)
	return text, webpage.HashSource(text), nil
}
