package audit

import "slices"

// Acceptances returns the lines of a baseline, without dates and reasons.
func Acceptances(b *Baseline) (out []string) {
	for _, a := range b.order {
		out = append(out, a.String())
	}
	return out
}

// Tally counts rows. The severity of each is a function of its place.
func Tally(subjects []Subject, severity func(place string) Severity) *Summary {
	var s Summary
	seen := classByID{}
	for _, one := range subjects {
		row := Row{Subject: one}
		if worst := severity(one.Place); worst != severityOK {
			row.Findings = []Finding{{Severity: worst}}
		}
		s.count(&row, seen)
	}
	return &s
}

// RowWith returns a row with one finding.
func RowWith(s Subject, id string, severity Severity) *Row {
	i := slices.IndexFunc(checks, func(c check) bool { return c.id == id })
	r := &Row{Subject: s, Findings: []Finding{checks[i].finding(severity, "text")}}
	r.State = stateWord(r.Findings)
	return r
}

// CountRow counts a row.
func CountRow(sum *Summary, r *Row) { sum.count(r, classByID{}) }
