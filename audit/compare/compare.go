// Package compare says how two reports of an audit differ: what appeared, what
// vanished, what got worse and what got better.
//
//	before, err := compare.Read(monday)
//	now, err := compare.Read(today)
//	changes := compare.Diff(before, now)
//
// Rows are matched in two steps. A CA certificate is matched by its fingerprint, any other
// row by its kind, place, block and name: a certificate that was renewed is the same
// service. Rows that are left are matched by kind and place alone, so that a file that
// can no longer be read counts as worse, not as vanished.
package compare

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

const (
	// schemaVersion is the only schema_version of reports that is accepted.
	schemaVersion = 2
	// maxReport bounds a report, in bytes: about 300 000 certificates.
	maxReport = 1 << 28
	maxRows   = 1 << 20
)

// Errors of [Read].
var (
	ErrIncomplete = errors.New("the report is not complete: it was interrupted or cut off, so nothing can be said to be missing in it")
	ErrSchema     = fmt.Errorf("the report has another schema_version than %d", schemaVersion)
	ErrTooLarge   = fmt.Errorf("the report is larger than %d MiB, or has more than %d rows", maxReport>>20, maxRows)
)

// Report has the rows of a report, with the members that a comparison needs.
type Report struct{ rows []row }

type row struct {
	State       string    `json:"state"`
	Kind        string    `json:"kind"`
	Place       string    `json:"place"`
	Block       int       `json:"block"`
	Error       string    `json:"error"`
	Findings    []finding `json:"findings"`
	Name        string    `json:"name"`
	Document    string    `json:"document_name"`
	CA          bool      `json:"ca"`
	Fingerprint string    `json:"fingerprint_sha256"`
}

type finding struct {
	Check    string `json:"check"`
	Severity string `json:"severity"`
	Text     string `json:"text"`
}

// value is one JSON value of a report: the whole report in JSON, or one line of it in
// NDJSON. Rows is nil in a line, and Summary is absent except in the last one.
type value struct {
	Schema   int             `json:"schema_version"`
	Rows     *[]row          `json:"rows"`
	Summary  json.RawMessage `json:"summary"`
	Complete bool            `json:"complete"`
	row
}

// Read reads a report in JSON or NDJSON, of 256 MiB at most. A report that is
// not complete, or of another schema, is an error.
func Read(in io.Reader) (*Report, error) { return readUpTo(in, maxReport) }

// readUpTo reads until the summary, which is the last value and says whether the report
// is complete. The limit is checked first: a value that is cut off by it looks like a
// report that was cut off.
func readUpTo(in io.Reader, limit int64) (*Report, error) {
	limited := &io.LimitedReader{R: in, N: limit + 1}
	dec := json.NewDecoder(limited)
	out := &Report{}
	for ended := false; ; {
		var v value
		err := dec.Decode(&v)
		switch {
		case limited.N <= 0:
			return nil, ErrTooLarge
		case errors.Is(err, io.EOF) && ended:
			return out, nil
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, ErrIncomplete
		case err != nil:
			return nil, fmt.Errorf("reading a report: %w", err)
		case v.Schema != schemaVersion:
			return nil, ErrSchema
		case ended:
			return nil, errors.New("reading a report: there is more behind its end")
		}
		known := len(out.rows)
		switch {
		case v.Rows != nil:
			out.rows = append(out.rows, *v.Rows...)
		case v.Summary == nil:
			out.rows = append(out.rows, v.row)
		}
		if v.Summary != nil {
			if ended = true; !v.Complete {
				return nil, ErrIncomplete
			}
		}
		if len(out.rows) > maxRows {
			return nil, ErrTooLarge
		}
		if i := slices.IndexFunc(out.rows[known:], func(r row) bool { return r.State == "" || r.Kind == "" }); i >= 0 {
			return nil, errors.New("reading a report: a row has no state or no kind")
		}
	}
}

// Kinds of changes.
const (
	Appeared = "appeared"
	Vanished = "vanished"
	Worse    = "worse"
	Better   = "better"
)

// Change is one row that is not as it was.
type Change struct {
	// Change is one of the kinds above.
	Change string `json:"change"`
	// Kind, Place, Block, Name and Fingerprint are those of the row.
	Kind        string `json:"kind"`
	Place       string `json:"place"`
	Block       int    `json:"block,omitempty"`
	Name        string `json:"name,omitempty"`
	Fingerprint string `json:"fingerprint_sha256,omitempty"`
	// Was and Is are states. Was is empty for a row that appeared, Is for one that vanished.
	Was      string `json:"was,omitempty"`
	Is       string `json:"is,omitempty"`
	Severity string `json:"severity,omitempty"`
	// Unread is true if the row could be read before and cannot be read in full now.
	Unread bool `json:"unread,omitempty"`
	// Findings are those that are new or more severe than before, as text.
	Findings []string `json:"findings,omitempty"`
	// Gone has the ids of checks that found something before and find nothing now.
	Gone []string `json:"gone,omitempty"`
}

// Changes are all differences, in the order of the new report; what vanished is last.
type Changes struct {
	List []Change
	// Same is the number of rows that did not change.
	Same int
	// Renewed is the number of rows in both reports whose certificate is another one.
	Renewed int
}

// identity is the key by which the rows of two reports are matched.
type identity struct {
	kind, place, name string
	block             int
}

func (r *row) identity() identity {
	if r.CA {
		return identity{kind: "ca", name: r.Fingerprint}
	}
	return identity{r.Kind, r.Place, r.Name + "\x00" + r.Document, r.Block}
}

// where returns the identity for the second step, in which rows are matched by their place.
func (r *row) where() identity { return identity{kind: r.Kind, place: r.Place} }

// Diff compares two reports. Each row is matched once at most, and in the order of the
// reports: of two equal rows the first is matched with the first.
func Diff(before, now *Report) *Changes {
	pairs := make([]*row, len(now.rows)) // of before, by the index in now
	taken := make([]bool, len(before.rows))
	for _, by := range []func(*row) identity{(*row).identity, (*row).where} {
		left := map[identity][]int{}
		for i := range before.rows {
			if !taken[i] {
				id := by(&before.rows[i])
				left[id] = append(left[id], i)
			}
		}
		for i := range now.rows {
			id := by(&now.rows[i])
			if pairs[i] != nil || len(left[id]) == 0 {
				continue
			}
			first := left[id][0]
			left[id], taken[first], pairs[i] = left[id][1:], true, &before.rows[first]
		}
	}
	out := &Changes{}
	for i := range now.rows {
		out.compare(pairs[i], &now.rows[i])
	}
	for i := range before.rows {
		if old := &before.rows[i]; !taken[i] {
			out.List = append(out.List, Change{Change: Vanished, Kind: old.Kind, Place: old.Place, Block: old.Block, Name: old.name(), Fingerprint: old.Fingerprint, Was: old.State})
		}
	}
	return out
}

func (r *row) name() string {
	if r.Name != "" {
		return r.Name
	}
	return r.Document
}

// severities go from the mildest to the worst.
var severities = []string{"info", "warn", "crit"}

// rank is 0 for a severity that is absent or unknown.
func rank(severity string) int { return slices.Index(severities, severity) + 1 }

// compare adds the change from old to r; old is nil for a new row. A check counts with
// its most severe finding. One finding that is worse makes the row worse, whatever else
// got better.
func (c *Changes) compare(old, r *row) {
	change := Change{Kind: r.Kind, Place: r.Place, Block: r.Block, Name: r.name(), Fingerprint: r.Fingerprint, Is: r.State}
	was := map[string]int{}
	if old != nil {
		change.Was = old.State
		for _, f := range old.Findings {
			was[f.Check] = max(was[f.Check], rank(f.Severity))
		}
		if old.Fingerprint != r.Fingerprint {
			c.Renewed++
		}
	}
	is := map[string]bool{}
	for _, f := range r.Findings {
		is[f.Check] = true
		if rank(f.Severity) > was[f.Check] {
			change.Findings = append(change.Findings, f.Check+": "+f.Text)
			if rank(f.Severity) > rank(change.Severity) {
				change.Severity = f.Severity
			}
		}
	}
	for check := range was {
		if !is[check] {
			change.Gone = append(change.Gone, check)
		}
	}
	slices.Sort(change.Gone)
	change.Unread = r.Error != "" && (old == nil || old.Error == "")
	readable := old != nil && old.Error != "" && r.Error == ""
	milder := old != nil && slices.ContainsFunc(r.Findings, func(f finding) bool { return rank(f.Severity) < was[f.Check] })
	switch {
	case old == nil:
		change.Change = Appeared
	case len(change.Findings) > 0 || change.Unread:
		change.Change = Worse
	case len(change.Gone) > 0 || readable || milder:
		change.Change = Better
	default:
		c.Same++
		return
	}
	c.List = append(c.List, change)
}

// Count returns how many changes are for the worse with a finding of at least the
// severity, which is info, warn or crit, and how many rows can be read no more.
func (c *Changes) Count(least string) (worse, unread int) {
	for _, change := range c.List {
		if change.Severity != "" && rank(change.Severity) >= rank(least) {
			worse++
		}
		if change.Unread {
			unread++
		}
	}
	return worse, unread
}

// Of counts the changes of one kind.
func (c *Changes) Of(kind string) (n int) {
	for _, change := range c.List {
		if change.Change == kind {
			n++
		}
	}
	return n
}
