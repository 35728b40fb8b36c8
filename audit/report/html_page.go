package report

import (
	"cmp"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/wording"
	"github.com/artstore/artstore-pki/internal/webpage"
)

const (
	// groupShown rows of a group are visible at first, and groupMost rows are in the page.
	// The table below the groups has all of them.
	groupShown = 5
	groupMost  = 100
)

// pageData has the values that html/page.gohtml shows. Fields that are clear from the template
// have no comment.
type pageData struct {
	CSP     string
	Style   template.CSS
	Script  template.JS
	Program string
	MadeAt  string // for people
	// Made is MadeAt in RFC 3339, for programs.
	Made string
	// Moment is set if the report is for another moment than the one it was made at.
	Moment string
	// Prefix begins the title of a forecast.
	Prefix  string
	Audited []string
	Verdict pageHeadline
	Groups  []group // that someone should act on
	Infos   []group
	// Unread has places that could not be read.
	Unread    group
	Timelines []timeline
	// Rows are visible at first; More are shown by script.js, Step at a time.
	Rows, More []pageRow
	Ranks      []tile // of the rows
	Total      int
	Step       int // rows that are shown at a time
	// States are the words that the rows use, for the filter.
	States []string
	Notes  []string
	Policy []string
}

// group has all findings of one check with one severity.
type group struct {
	Class, Check, Remedy, Cites string
	Count                       string
	Shown, More                 []groupRow
	// Beyond is the number of rows that only the table has.
	Beyond                  int
	certificates, documents int
	listed                  int // findings
	// last is the row that was added last: the notes of one row come one after the other.
	last int
	// at is the place in the table of checks, or -1 for a check that is not in it.
	at       int
	severity audit.Severity
}

type groupRow struct{ Name, Place, Text string }

// buildPage puts together what the template shows. The policy of the page allows its
// style and its script by hash, and nothing else: no connection, form, frame or image.
func (h *htmlRenderer) buildPage(s *audit.Summary) (*pageData, error) {
	style, styleHash, err := asset(webpage.BaseStyle, "style.css")
	if err != nil {
		return nil, err
	}
	script, scriptHash, err := asset("", "script.js")
	if err != nil {
		return nil, err
	}
	shown := min(shownRows, len(h.rows))
	p := &pageData{
		CSP:   "default-src 'none'; style-src " + styleHash + "; script-src " + scriptHash + "; base-uri 'none'; form-action 'none'",
		Style: template.CSS(style), Script: template.JS(script), //nolint:gosec // G203: files of this package, not a stranger's text
		Program: cmp.Or(h.program, "artstore-pki"), MadeAt: s.ReportTime().UTC().Format(pageTime), Made: s.ReportTime().UTC().Format("2006-01-02T15:04:05Z"),
		Moment: s.Moment(pageTime, time.UTC), Audited: aboutLines(&s.About),
		Verdict: h.headline(s), Rows: h.rows[:shown], More: h.rows[shown:], Total: len(h.rows), Step: shownRows,
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
	if s.Forecast() {
		p.Prefix = "Forecast: "
	}
	for rank := len(rankNames) - 1; rank >= 0; rank-- {
		is := tile{Class: rankNames[rank].class, Word: rankNames[rank].word}
		for i := range h.rows {
			if h.rows[i].rank == rank {
				is.Count++
			}
		}
		p.Ranks = append(p.Ranks, is)
	}
	p.Groups, p.Infos, p.Unread = h.groups()
	return p, nil
}

// groups returns the findings by check and severity: those to act on, those to know, and the
// places that could not be read. They are ordered by severity, then by the table of checks.
func (h *htmlRenderer) groups() (act, infos []group, unread group) {
	type key struct {
		check    string
		severity audit.Severity
	}
	found := map[key]*group{}
	unread.Class = "unchecked"
	places, parts := 0, 0
	for i := range h.rows {
		row := &h.rows[i]
		for _, n := range row.Notes {
			if n.Check == "" {
				unread.add(row, n, audit.Warn)
				continue
			}
			id := key{n.Check, severityOf(n.Class)}
			if found[id] == nil {
				found[id] = newGroup(n.Check)
			}
			found[id].add(row, n, id.severity)
		}
		switch {
		case !slices.ContainsFunc(row.Notes, func(n pageNote) bool { return n.Check == "" }):
		case row.dated:
			parts++
		default:
			places++
		}
	}
	for _, g := range found {
		g.Class, g.Count = g.severity.String(), g.counts()
		if g.severity == audit.Info {
			infos = append(infos, *g)
			continue
		}
		act = append(act, *g)
	}
	order := func(a, b group) int { return cmp.Or(cmp.Compare(b.severity, a.severity), cmp.Compare(a.at, b.at)) }
	slices.SortFunc(act, order)
	slices.SortFunc(infos, order)
	counts := []string{wording.Plural(places, "place", "places")}
	if parts > 0 {
		counts = append(counts, wording.Plural(parts, "certificate", "certificates")+" in part")
	}
	if places == 0 {
		counts = counts[1:]
	}
	unread.Count = strings.Join(counts, ", ")
	return act, infos, unread
}

func newGroup(id string) *group {
	checks := audit.Checks()
	g := &group{Check: id, at: slices.IndexFunc(checks, func(c audit.Finding) bool { return c.Check == id })}
	if g.at >= 0 {
		g.Remedy, g.Cites = checks[g.at].Remedy, checks[g.at].Cites
	}
	return g
}

func severityOf(name string) audit.Severity {
	for s := audit.Info; s < audit.Crit; s++ {
		if s.String() == name {
			return s
		}
	}
	return audit.Crit
}

func (g *group) add(row *pageRow, n pageNote, severity audit.Severity) {
	g.severity = max(g.severity, severity)
	one := groupRow{row.Name, n.where(), n.Text}
	if row.at != g.last { // one certificate may have it in several places
		g.last = row.at
		if row.dated {
			g.certificates++
		} else {
			g.documents++
		}
	}
	switch g.listed++; {
	case g.listed <= groupShown:
		g.Shown = append(g.Shown, one)
	case g.listed <= groupMost:
		g.More = append(g.More, one)
	default:
		g.Beyond++
	}
}

// counts says how many certificates and how many documents have the finding.
func (g *group) counts() string {
	var parts []string
	if g.certificates > 0 {
		parts = append(parts, wording.Plural(g.certificates, "certificate", "certificates"))
	}
	if g.documents > 0 {
		parts = append(parts, wording.Plural(g.documents, "document", "documents"))
	}
	return strings.Join(parts, ", ")
}

// aboutLines returns the lines about the audit. An unknown part has no line.
func aboutLines(a *audit.About) (out []string) {
	for _, one := range []struct{ label, text string }{
		{"Host", a.Host}, {"Command", pageList(a.Command, " ")}, {"Targets", pageList(a.Targets, ", ")}, {"Record", a.Record}, {"Trust bundle", a.Bundle},
	} {
		if one.text != "" {
			out = append(out, one.label+": "+pageText(one.text))
		}
	}
	return out
}

// notes say what the page does not show, so that a reader does not take it for all.
func (h *htmlRenderer) notes(s *audit.Summary) (out []string) {
	if !s.Complete {
		out = append(out, interrupted+".")
	}
	if s.Unjudged > 0 {
		out = append(out, wording.Plural(s.Unjudged, "chain was", "chains were")+" not judged, because there is no trust bundle to judge by: --ca-cert names one.")
	}
	if s.Accepted > 0 {
		out = append(out, wording.Plural(s.Accepted, "finding is", "findings are")+" accepted by the baseline and left out; the rows say which.")
	}
	for _, line := range s.Stale {
		out = append(out, "The baseline accepts what was not found: "+pageText(line))
	}
	if h.worst.dropped > 0 {
		out = append(out, fmt.Sprintf("%s, the mildest and longest-lived, in the verdict only: this page has room for %d; -o json and -o csv have all.",
			wording.Plural(h.worst.dropped, "row is", "rows are"), maxPageRows))
	}
	return out
}
