package audit

import (
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/endpoint"
	"github.com/artstore/artstore-pki/audit/internal/wording"
)

// Summary is a report in numbers. A certificate counts once, as what is worst
// about it, in however many places it lies: Fine, Warn, Crit and Partial add up to
// Certificates. What is no certificate counts apart.
type Summary struct {
	Now          time.Time `json:"-"` // when it was complete, by [Config.Now]
	Made         time.Time `json:"-"` // zero unless the report is of another moment than this
	Complete     bool      `json:"-"` // the audit was not interrupted
	About        About     `json:"-"`
	Certificates int       `json:"certificates"`
	Fine         int       `json:"fine"` // with an Info at most
	Info         int       `json:"info"` // of the fine ones, those with one
	Warn         int       `json:"warn"`
	Crit         int       `json:"crit"`
	Partial      int       `json:"read_in_part"`    // of which nothing but dates was judged, and none of them critical
	Unread       int       `json:"places_not_read"` // that could hold any number of certificates
	// Documents are revocation lists, private keys alone, requests and tokens that were read.
	Documents     int `json:"documents"`
	DocumentsWarn int `json:"documents_warn"`
	DocumentsCrit int `json:"documents_crit"`
	// Unjudged counts places of leaves whose chain could not be judged for want of a bundle.
	Unjudged int `json:"chains_not_judged"`
	// Judged counts places of leaves with a bundle.
	Judged int `json:"-"`
	// Accepted counts findings that the baseline took away.
	Accepted int `json:"accepted"`
	// Stale are the lines of the baseline, as far as they matter, that nothing was found for.
	Stale []string `json:"stale,omitempty"`
	// LeftOut is what walks left out on purpose, by reason.
	LeftOut []LeftOut `json:"left_out,omitempty"`
	// Policy says in sentences what was judged by.
	Policy []string `json:"-"`

	rows   [Crit + 1]int // by severity
	failed int           // rows with an error
	kinds  [len(documentKinds)]int
}

// documentKinds are those that a summary has a word for.
var documentKinds = [...]struct{ what, one, many string }{
	{cert.RevocationList, cert.RevocationList, "revocation lists"},
	{cert.PrivateKey, cert.PrivateKey, "private keys"},
	{"certificate request", "request", "requests"},
	{"token", "token", "tokens"},
}

// About says what was audited, where, and with which trust. Of addresses in it the
// report shows what it shows of their places. What is empty is left out.
type About struct {
	Host    string   `json:"host,omitempty"`
	Command []string `json:"command,omitempty"` // with its arguments
	Targets []string `json:"targets,omitempty"`
	Record  string   `json:"record,omitempty"`
	Bundle  string   `json:"trust_bundle,omitempty"` // the file
}

// shown leaves out of addresses what may be a password.
func (a About) shown() About {
	for _, list := range []*[]string{&a.Command, &a.Targets} {
		*list = slices.Clone(*list)
		for i, text := range *list {
			(*list)[i] = endpoint.Place(text)
		}
	}
	return a
}

// class is what a certificate counts as. They are in order: what is seen again
// counts as the worse one.
type class uint8

const (
	classFine class = iota + 1
	classInfo
	classWarn
	classPartial
	classCrit
)

func (r *Row) class() class {
	switch severity := r.Severity(); {
	case severity == Crit:
		return classCrit
	case r.Err != nil:
		return classPartial
	case severity == Warn:
		return classWarn
	case severity == Info:
		return classInfo
	}
	return classFine
}

// classByID remembers what each certificate counts as.
type classByID map[cert.ID]class

func (s *Summary) count(r *Row, seen classByID) {
	s.rows[r.Severity()]++
	s.Accepted += len(r.Accepted)
	if r.Err != nil {
		s.failed++
	}
	switch {
	case r.Cert != nil:
		s.countCertificate(r, seen)
	case r.Err != nil:
		s.Unread++
	default:
		s.countDocument(r.Document, r.Severity())
	}
	if r.Leaf() && r.Bundle == nil && r.Kind != kindRecord {
		s.Unjudged++
	} else if r.Leaf() && r.Bundle != nil {
		s.Judged++
	}
}

func (s *Summary) countCertificate(r *Row, seen classByID) {
	id, now := r.Cert.ID(), r.class()
	before := seen[id]
	if before >= now {
		return
	}
	seen[id] = now
	if before == 0 {
		s.Certificates++
	} else {
		s.move(before, -1)
	}
	s.move(now, 1)
}

func (s *Summary) move(c class, n int) {
	switch c {
	case classCrit:
		s.Crit += n
	case classPartial:
		s.Partial += n
	case classWarn:
		s.Warn += n
	case classInfo:
		s.Info += n
		s.Fine += n
	case classFine:
		s.Fine += n
	}
}

func (s *Summary) countDocument(d *cert.Document, severity Severity) {
	s.Documents++
	for i := range documentKinds {
		if d != nil && d.What == documentKinds[i].what {
			s.kinds[i]++
		}
	}
	switch severity {
	case Crit:
		s.DocumentsCrit++
	case Warn:
		s.DocumentsWarn++
	}
}

// Count returns how many rows have a worst finding of at least the given
// severity, and how many could not be checked. A certificate that was read in
// part only can be both.
func (s *Summary) Count(least Severity) (findings, unchecked int) {
	for severity := max(least, Info); severity <= Crit; severity++ {
		findings += s.rows[severity]
	}
	return findings, s.failed
}

// ReportTime is when the report was made.
func (s *Summary) ReportTime() time.Time {
	if s.Made.IsZero() {
		return s.Now
	}
	return s.Made
}

// Forecast reports whether the report is of a moment that had not come when it was made.
func (s *Summary) Forecast() bool { return !s.Made.IsZero() && s.Now.After(s.Made) }

// Moment says that a report is of another moment than the one it was made at; "" if it is not.
func (s *Summary) Moment(layout string, in *time.Location) string {
	if s.Made.IsZero() {
		return ""
	}
	what := "In the past"
	if s.Forecast() {
		what = "Forecast"
	}
	return fmt.Sprintf("%s: judged as of %s, made %s", what, s.Now.In(in).Format(layout), s.Made.In(in).Format(layout))
}

// String is the report in one line.
func (s *Summary) String() string {
	text := fmt.Sprintf("%s: %d fine, %d to watch, %d critical", wording.Plural(s.Certificates, "certificate", "certificates"), s.Fine, s.Warn, s.Crit)
	more := func(n int, sep, one, many string) {
		if n > 0 {
			text += sep + wording.Plural(n, one, many)
		}
	}
	more(s.Partial, ", ", "read in part", "read in part")
	more(s.Unread, "; ", "place could not be read", "places could not be read")
	others := s.Documents
	for i, k := range documentKinds {
		more(s.kinds[i], "; ", k.one, k.many)
		others -= s.kinds[i]
	}
	more(others, "; ", "document", "documents")
	if s.DocumentsWarn+s.DocumentsCrit > 0 {
		of := ":"
		if others != s.Documents && slices.Max(s.kinds[:]) != s.Documents { // several kinds
			of = fmt.Sprintf("; of these %d documents", s.Documents)
		}
		text += fmt.Sprintf("%s %d to watch, %d critical", of, s.DocumentsWarn, s.DocumentsCrit)
	}
	more(s.Unjudged, "; ", "chain not judged: no trust bundle", "chains not judged: no trust bundle")
	if s.Accepted > 0 || len(s.Stale) > 0 {
		text += "; " + wording.Plural(s.Accepted, "finding accepted", "findings accepted")
		more(len(s.Stale), ", ", "acceptance for nothing", "acceptances for nothing")
	}
	return text
}

// Renderer writes a report. Row is called for each row, in the order of the
// report, then End once; an error of Row ends the run. A renderer keeps nothing of
// a row that it has written: reports are longer than memory.
type Renderer interface {
	Row(r *Row) error
	End(s *Summary) error
}
