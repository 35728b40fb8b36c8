package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/wording"
	"github.com/artstore/artstore-pki/internal/humantime"
)

// counts counts for the verdict: each certificate once, under the worst that is true of
// it, and apart from them documents and places that could not be read.
type counts struct {
	of [len(phrases)]int
	// within is the largest remaining time of the certificates that count as expiring.
	within humantime.Seconds
	seen   map[cert.ID]int
	others [audit.Crit + 1]int // documents, by severity
	places int                 // that were not read
}

// phrase is a clause of the verdict. A certificate counts under the first phrase whose
// function is returns true for its row.
type phrase struct {
	class, one, many string // behind a number
	is               func(*audit.Row) bool
}

func hasState(word string) func(*audit.Row) bool {
	return func(r *audit.Row) bool { return r.State == word }
}

// Places in phrases: the clause that also says a time, and the clause before which
// documents and unread places are named.
const (
	expiringAt  = 3
	uncheckedAt = 6
)

var phrases = [...]phrase{
	{"crit", "has expired", "have expired", hasState("EXPIRED")},
	{"crit", "is revoked", "are revoked", hasState("REVOKED")},
	{"crit", "is overdue for renewal", "are overdue for renewal", hasState("OVERDUE")},
	{"warn", "expires within %s", "expire within %s", func(r *audit.Row) bool {
		return slices.ContainsFunc(r.Findings, func(f audit.Finding) bool { return f.Check == "expiring" })
	}},
	{"crit", "is not valid yet", "are not valid yet", hasState("NOT-YET")},
	{"crit", "has a critical problem", "have critical problems", func(r *audit.Row) bool { return r.Severity() == audit.Crit }},
	{"unchecked", "was read in part", "were read in part", func(r *audit.Row) bool { return r.Err != nil }},
	{"warn", "is to watch", "are to watch", func(r *audit.Row) bool { return r.Severity() == audit.Warn }},
}

// count adds a row. A certificate that was counted in another place moves to the worse
// of the two phrases, which is the earlier one.
func (t *counts) count(r *audit.Row) {
	switch {
	case r.Cert == nil && r.Err != nil:
		t.places++
		return
	case r.Cert == nil:
		t.others[r.Severity()]++
		return
	case t.seen == nil:
		t.seen = map[cert.ID]int{}
	}
	i := slices.IndexFunc(phrases[:], func(p phrase) bool { return p.is(r) })
	if i < 0 {
		i = len(phrases)
	}
	if i == expiringAt {
		t.within = max(t.within, humantime.Between(r.Judged, r.Cert.NotAfter))
	}
	id := r.Cert.ID()
	before, known := t.seen[id]
	if known && before <= i {
		return
	}
	t.seen[id] = i
	if known && before < len(phrases) {
		t.of[before]--
	}
	if i < len(phrases) {
		t.of[i]++
	}
}

// pageHeadline is the top of a page. Class is that of the worst finding, or "nothing" if
// nothing was found.
type pageHeadline struct {
	Class string // of the worst finding, or "nothing"
	Title string
	Rest  []string // sentences
	Tiles []tile
}

type tile struct {
	Class, Word string
	Count       int
}

func (h *htmlRenderer) headline(s *audit.Summary) pageHeadline {
	clauses := h.tally.clauses()
	v := pageHeadline{Class: rankNames[0].class, Tiles: tilesOf(s)}
	for _, name := range rankNames {
		if slices.ContainsFunc(v.Tiles, func(t tile) bool { return t.Class == name.class && t.Count > 0 }) {
			v.Class = name.class // the ranks go up
		}
	}
	if s.Certificates == 0 && len(clauses) == 0 {
		v.Class = "nothing"
	}
	v.Title, v.Rest = title(s, clauses), h.rest(s, clauses)
	return v
}

// tilesOf returns the numbers at the top. Those of certificates add up to all certificates;
// the others appear only if they are not 0.
func tilesOf(s *audit.Summary) []tile {
	out := []tile{{"crit", "critical", s.Crit}, {"warn", "to watch", s.Warn}, {"ok", "fine", s.Fine}}
	for _, t := range []tile{
		{"unchecked", "read in part", s.Partial}, {"unchecked", "places not read", s.Unread}, {"info", "other documents", s.Documents},
		{"crit", "of these critical", s.DocumentsCrit}, {"warn", "of these to watch", s.DocumentsWarn},
	} {
		if t.Count > 0 {
			out = append(out, t)
		}
	}
	return out
}

// clause is a number of things, their name, and a statement about them.
type clause struct {
	n               int
	one, many, text string
}

func (t *counts) clauses() (out []clause) {
	add := func(n int, one, many, text string) {
		if n > 0 {
			out = append(out, clause{n, one, many, text})
		}
	}
	for i, p := range phrases {
		text := p.many
		if t.of[i] == 1 {
			text = p.one
		}
		if i == expiringAt {
			text = fmt.Sprintf(text, ceiling(t.within))
		}
		if i == uncheckedAt {
			add(t.others[audit.Crit], "document", "documents", map[bool]string{true: "has a critical problem", false: "have critical problems"}[t.others[audit.Crit] == 1])
			add(t.places, "place", "places", "could not be checked")
		}
		add(t.of[i], "certificate", "certificates", text)
	}
	add(t.others[audit.Warn], "document", "documents", map[bool]string{true: "is to watch", false: "are to watch"}[t.others[audit.Warn] == 1])
	return out
}

// sentence joins clauses. It names what is counted only where that changes: "2
// certificates have expired, 1 is revoked, 1 place could not be checked".
func sentence(clauses []clause) string {
	var parts []string
	counted := ""
	for _, c := range clauses {
		if c.one == counted {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.text))
			continue
		}
		counted = c.one
		parts = append(parts, wording.Plural(c.n, c.one, c.many)+" "+c.text)
	}
	return strings.Join(parts, ", ")
}

// title has the two worst clauses, or says that all certificates are fine.
func title(s *audit.Summary, clauses []clause) string {
	switch {
	case len(clauses) > 0:
		return sentence(clauses[:min(2, len(clauses))])
	case s.Certificates == 0:
		return "No certificate was found"
	case s.Certificates == 1:
		return "The one certificate is fine"
	}
	return fmt.Sprintf("All %d certificates are fine", s.Certificates)
}

// rest has the sentences below the title: further clauses, and which certificate is the
// next to end.
func (h *htmlRenderer) rest(s *audit.Summary, clauses []clause) (out []string) {
	if len(clauses) > 2 {
		out = append(out, "Besides, "+sentence(clauses[2:])+".")
	}
	if s.Certificates == 0 && len(clauses) == 0 {
		return append(out, "Was this the right place to look?")
	}
	first := func(is func(*pageRow) bool) *pageRow { // of a rank, rows are by their ends
		for i := range h.rows {
			if h.rows[i].dated && is(&h.rows[i]) {
				return &h.rows[i]
			}
		}
		return nil
	}
	if late := first(func(r *pageRow) bool { return r.State == "OVERDUE" }); late != nil {
		out = append(out, fmt.Sprintf("Of those overdue, %s is the first to end, in %s.", late.Name, late.Left))
	}
	if n := first(func(r *pageRow) bool { return r.rank == 0 }); n != nil {
		which := "The next to end"
		if len(clauses) > 0 {
			which = "Of the others, the next to end"
		}
		text := fmt.Sprintf("%s is %s, in %s", which, n.Name, n.Left)
		if n.renews {
			text += "; a program renews it before"
		}
		out = append(out, text+".")
	}
	return out
}

// ceiling is the least whole number of minutes, hours or days that holds d.
func ceiling(d humantime.Seconds) string {
	unit, one, many := wording.Day, "day", "days"
	switch {
	case d <= wording.Hour:
		unit, one, many = wording.Minute, "minute", "minutes"
	case d <= 48*wording.Hour:
		unit, one, many = wording.Hour, "hour", "hours"
	}
	return wording.Plural(int((d+unit-1)/unit), one, many)
}
