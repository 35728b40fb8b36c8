package audit

import (
	"cmp"
	"fmt"
	"html/template"
	"slices"
)

const (
	// groupShown are the rows of a group in sight, groupMost those in the page; the table has all.
	groupShown = 5
	groupMost  = 100
)

// page is what html/page.gohtml shows.
type page struct {
	CSP        string
	Style      template.CSS
	Script     template.JS
	Program    string
	JudgedAt   string // for people
	Judged     string // for programs, RFC 3339
	Verdict    pageVerdict
	Groups     []group // that someone should act on
	Infos      []group
	Unread     group // no certificates
	Timelines  []timeline
	Rows, More []pageRow // in sight, and the rest
	Total      int
	Step       int      // rows that are shown at a time
	States     []string // words in use
	Notes      []string
	Policy     []string
}

// group is all that one check has found.
type group struct {
	Class, Check, Remedy, Cites string
	Count                       string
	Shown, More                 []groupRow
	Beyond                      int // rows that are in the table only
	total                       int
	at                          int // in the table of checks
	severity                    Severity
}

type groupRow struct{ Name, Place, Text string }

func (h *asHTML) page(s *Summary) (*page, error) {
	style, styleHash, err := asset("style.css")
	if err != nil {
		return nil, err
	}
	script, scriptHash, err := asset("script.js")
	if err != nil {
		return nil, err
	}
	shown := min(shownRows, len(h.rows))
	p := &page{
		CSP:   "default-src 'none'; style-src " + styleHash + "; script-src " + scriptHash + "; base-uri 'none'; form-action 'none'",
		Style: template.CSS(style), Script: template.JS(script), //nolint:gosec // G203: files of this package, not a stranger's text
		Program: cmp.Or(h.program, "artstore-pki"), JudgedAt: s.Now.UTC().Format(pageTime), Judged: s.Now.UTC().Format("2006-01-02T15:04:05Z"),
		Verdict: h.tally.verdict(s), Rows: h.rows[:shown], More: h.rows[shown:], Total: len(h.rows), Step: shownRows,
		Timelines: h.timelines(), Notes: h.notes(s),
	}
	for _, text := range s.Policy {
		p.Policy = append(p.Policy, pageText(text))
	}
	for i := range h.rows {
		if word := h.rows[i].State; !slices.Contains(p.States, word) {
			p.States = append(p.States, word)
		}
	}
	p.Groups, p.Infos, p.Unread = h.groups()
	return p, nil
}

// groups are worst first, then in the order of the checks.
func (h *asHTML) groups() (act, infos []group, unread group) {
	found := map[string]*group{}
	unread.Class = "unchecked"
	for i := range h.rows {
		row := &h.rows[i]
		for _, n := range row.Notes {
			if n.Check == "" {
				unread.add(row, n, Warn)
				continue
			}
			if found[n.Check] == nil {
				found[n.Check] = newGroup(n.Check)
			}
			found[n.Check].add(row, n, severityOf(n.Class))
		}
	}
	for _, g := range found {
		g.Class, g.Count = g.severity.String(), plural(g.total, "certificate", "certificates")
		if g.severity == Info {
			infos = append(infos, *g)
			continue
		}
		act = append(act, *g)
	}
	order := func(a, b group) int { return cmp.Or(cmp.Compare(b.severity, a.severity), cmp.Compare(a.at, b.at)) }
	slices.SortFunc(act, order)
	slices.SortFunc(infos, order)
	unread.Count = plural(unread.total, "place", "places")
	return act, infos, unread
}

func newGroup(id string) *group {
	g := &group{Check: id, at: slices.IndexFunc(checks, func(c check) bool { return c.id == id })}
	if g.at >= 0 {
		g.Remedy, g.Cites = checks[g.at].remedy, checks[g.at].cites
	}
	return g
}

func severityOf(name string) Severity {
	for s := Info; s < Crit; s++ {
		if s.String() == name {
			return s
		}
	}
	return Crit
}

func (g *group) add(row *pageRow, n pageNote, severity Severity) {
	g.severity = max(g.severity, severity)
	one := groupRow{row.Name, row.Place, n.Text}
	switch g.total++; {
	case g.total <= groupShown:
		g.Shown = append(g.Shown, one)
	case g.total <= groupMost:
		g.More = append(g.More, one)
	default:
		g.Beyond++
	}
}

func (h *asHTML) notes(s *Summary) (out []string) {
	if s.Unjudged > 0 {
		out = append(out, plural(s.Unjudged, "chain was", "chains were")+" not judged, because there is no trust bundle to judge by: --ca-cert names one.")
	}
	if s.Accepted > 0 {
		out = append(out, plural(s.Accepted, "finding is", "findings are")+" accepted by the baseline and left out; the rows say which.")
	}
	for _, line := range s.Stale {
		out = append(out, "The baseline accepts what was not found: "+pageText(line))
	}
	if h.worst.dropped > 0 {
		out = append(out, fmt.Sprintf("%s, the mildest and longest-lived, in the verdict only: this page has room for %d; -o json and -o csv have all.",
			plural(h.worst.dropped, "row is", "rows are"), maxPageRows))
	}
	return out
}
