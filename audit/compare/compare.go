// Package compare says how two reports of an audit differ: what appeared, what
// vanished, what got worse and what got better.
//
//	before, err := compare.Read(monday)
//	now, err := compare.Read(today)
//	changes := compare.Diff(before, now)
//
// A certificate of an authority is the same one by its fingerprint. Any other row
// is the same one by its kind, place, block and name: a certificate that was
// renewed is the same service. What is left over of the same place is compared
// with what is left over there, so that a file that can be read no more got worse.
package compare

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

const (
	schemaVersion = 2       // of reports
	maxReport     = 1 << 28 // bytes of a report: some 300 000 certificates
	maxRows       = 1 << 20
)

// Errors of [Read].
var (
	ErrIncomplete = errors.New("the report is not complete: it was interrupted or cut off, so nothing can be said to be missing in it")
	ErrSchema     = fmt.Errorf("the report has another schema_version than %d", schemaVersion)
	ErrTooLarge   = fmt.Errorf("the report is larger than %d MiB, or has more than %d rows", maxReport>>20, maxRows)
)

// Report is what of a report matters for a comparison.
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

// value is a whole report in JSON, or a line of one in NDJSON.
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
	Change      string   `json:"change"` // one of the kinds
	Kind        string   `json:"kind"`   // of the row, like the next ones
	Place       string   `json:"place"`
	Block       int      `json:"block,omitempty"`
	Name        string   `json:"name,omitempty"`
	Fingerprint string   `json:"fingerprint_sha256,omitempty"`
	Was         string   `json:"was,omitempty"` // state; empty for what appeared
	Is          string   `json:"is,omitempty"`  // state; empty for what vanished
	Severity    string   `json:"severity,omitempty"`
	Unread      bool     `json:"unread,omitempty"`   // it can be read no more, or not in full
	Findings    []string `json:"findings,omitempty"` // that are new or more severe, as text
	Gone        []string `json:"gone,omitempty"`     // ids of checks that find nothing any more
}

// Changes are all differences, in the order of the new report; what vanished is last.
type Changes struct {
	List    []Change
	Same    int // rows that are as they were
	Renewed int // of all that are in both reports, those with another certificate
}

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

func (r *row) where() identity { return identity{kind: r.Kind, place: r.Place} }

// Diff compares two reports.
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

// severities are in order.
var severities = []string{"info", "warn", "crit"}

func rank(severity string) int { return slices.Index(severities, severity) + 1 }

// compare takes nil for old if the row is new.
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
