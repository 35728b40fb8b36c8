package audit

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// tally counts rows for the verdict. Each counts once, as what is worst about it.
type tally struct {
	of     [len(phrases)]int
	ranks  [len(rankNames)]int
	within time.Duration // what will expire first does so within it, and so do all others that are expiring
	next   *pageRow      // to end, of the fine ones
	renews bool
}

// phrase is a clause of the verdict. is picks its rows; the first that does counts.
type phrase struct {
	class, one, many string // behind a number
	is               func(*Row) bool
}

func hasState(word string) func(*Row) bool { return func(r *Row) bool { return r.State == word } }

// expiringAt is where the phrases have what is expiring, which says a time too.
const expiringAt = 3

var phrases = [...]phrase{
	{"crit", "has expired", "have expired", hasState("EXPIRED")},
	{"crit", "is revoked", "are revoked", hasState("REVOKED")},
	{"crit", "is overdue for renewal", "are overdue for renewal", hasState("OVERDUE")},
	{"warn", "expires within %s", "expire within %s", func(r *Row) bool {
		return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Check == "expiring" })
	}},
	{"crit", "is not valid yet", "are not valid yet", hasState("NOT-YET")},
	{"crit", "has a critical problem", "have critical problems", func(r *Row) bool { return r.Severity() == Crit }},
	{"unchecked", "could not be checked", "could not be checked", func(r *Row) bool { return r.Err != nil }},
	{"warn", "is to watch", "are to watch", func(r *Row) bool { return r.Severity() == Warn }},
}

func (t *tally) count(r *Row) {
	t.ranks[r.rank()]++
	i := slices.IndexFunc(phrases[:], func(p phrase) bool { return p.is(r) })
	switch {
	case i == expiringAt:
		t.within = max(t.within, r.Cert.notAfter.Sub(r.Judged))
	case i < 0 && r.Cert != nil && (t.next == nil || r.Cert.notAfter.Before(t.next.end)):
		t.next, t.renews = &pageRow{end: r.end()}, r.renews()
		r.fill(t.next)
	}
	if i >= 0 {
		t.of[i]++
	}
}

// pageVerdict is the first thing that a reader of a page sees.
type pageVerdict struct {
	Class string // of the worst; nothing if there is none
	Title string
	Rest  []string // sentences
	Tiles []tile
}

type tile struct {
	Class, Word string
	Count       int
}

func (t *tally) verdict(s *Summary) pageVerdict {
	v := pageVerdict{Class: rankNames[0].class}
	var clauses []string
	for i, p := range phrases {
		n := t.of[i]
		if n == 0 {
			continue
		}
		text := plural(n, p.one, p.many)
		if i == expiringAt {
			text = fmt.Sprintf(text, ceiling(t.within))
		}
		clauses = append(clauses, text)
	}
	for rank, n := range t.ranks {
		name := rankNames[rank]
		if n > 0 {
			v.Class = name.class // the ranks go up
		}
		v.Tiles = slices.Insert(v.Tiles, 0, tile{name.class, name.word, n})
	}
	if s.Certificates == 0 && len(clauses) == 0 {
		v.Class = "nothing"
	}
	v.Title, v.Rest = t.title(s, clauses), t.rest(s, clauses)
	return v
}

// title is one line: the two worst clauses, or that there are none.
func (t *tally) title(s *Summary, clauses []string) string {
	switch {
	case len(clauses) > 0:
		// The first says what is counted.
		number, what, _ := strings.Cut(clauses[0], " ")
		noun := "certificate"
		if t.ranks[2] > 0 && s.Crit+s.Warn == 0 {
			noun = "place"
		}
		if number != "1" {
			noun += "s"
		}
		return strings.Join(append([]string{number + " " + noun + " " + what}, clauses[1:min(2, len(clauses))]...), ", ")
	case s.Certificates == 0:
		return "No certificate was found"
	case s.Certificates == 1:
		return "The one certificate is fine"
	}
	return fmt.Sprintf("All %d certificates are fine", s.Certificates)
}

func (t *tally) rest(s *Summary, clauses []string) (out []string) {
	if len(clauses) > 2 {
		out = append(out, "Besides, "+strings.Join(clauses[2:], ", ")+".")
	}
	if s.Certificates == 0 && len(clauses) == 0 {
		return append(out, "Was this the right place to look?")
	}
	if n := t.next; n != nil {
		which := "The next to end"
		if len(clauses) > 0 {
			which = "Of the others, the next to end"
		}
		text := fmt.Sprintf("%s is %s, in %s", which, n.Name, span(n.left))
		if t.renews {
			text += "; a program renews it before"
		}
		out = append(out, text+".")
	}
	return out
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// ceiling is the least whole number of minutes, hours or days that holds d.
func ceiling(d time.Duration) string {
	unit, one, many := 24*time.Hour, "day", "days"
	switch {
	case d <= time.Hour:
		unit, one, many = time.Minute, "minute", "minutes"
	case d <= 48*time.Hour:
		unit, one, many = time.Hour, "hour", "hours"
	}
	return plural(int((d+unit-1)/unit), one, many)
}
