package audit

import (
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/endpoint"
	"github.com/artstore/artstore-pki/audit/internal/wording"
)

// Summary is a report in numbers. A certificate counts once, by its worst finding, however
// many places it was found in: Fine, Warn, Crit and Partial add up to Certificates.
// Documents and places that could not be read count apart.
type Summary struct {
	// Now is the moment at which the audit was complete, by Config.Now.
	Now time.Time `json:"-"`
	// Made is when the report was made; zero if that is Now.
	Made time.Time `json:"-"`
	// Complete is false if the audit was interrupted.
	Complete     bool  `json:"-"`
	About        About `json:"-"`
	Certificates int   `json:"certificates"`
	// Fine counts certificates whose worst finding is an Info, or that have none. Info
	// counts those of them that have one.
	Fine int `json:"fine"`
	Info int `json:"info"`
	Warn int `json:"warn"`
	Crit int `json:"crit"`
	// Partial counts certificates that crypto/x509 refuses and that have no critical
	// finding.
	Partial int `json:"read_in_part"`
	// Unread counts places that could not be read. Each may hold any number of
	// certificates.
	Unread int `json:"places_not_read"`
	// Documents are revocation lists, private keys alone, requests and tokens that were read.
	Documents     int `json:"documents"`
	DocumentsWarn int `json:"documents_warn"`
	DocumentsCrit int `json:"documents_crit"`
	// Unjudged counts places of leaves without a bundle, whose chain was not judged. One that
	// has signed itself is not among them: no bundle could make it good.
	Unjudged int `json:"chains_not_judged"`
	// Uncompared counts places of certificates whose private key could not be compared.
	Uncompared int `json:"keys_not_compared"`
	// Judged counts places of leaves with a bundle.
	Judged int `json:"-"`
	// Accepted counts findings that the baseline has removed.
	Accepted int `json:"accepted"`
	// Stale are the lines of the baseline that matched no finding, of checks that ran.
	Stale []string `json:"stale,omitempty"`
	// LeftOut are the paths that walks left out on purpose, by reason.
	LeftOut []LeftOut `json:"left_out,omitempty"`
	// Policy are sentences about the measures of the audit.
	Policy []string `json:"-"`

	rows   [Crit + 1]int // by severity
	failed int           // rows with an error
	kinds  [len(documentKinds)]int
}

// documentKinds are the kinds of documents that a summary names.
var documentKinds = [...]struct{ what, one, many string }{
	{cert.RevocationList, cert.RevocationList, "revocation lists"},
	{cert.PrivateKey, cert.PrivateKey, "private keys"},
	{"certificate request", "request", "requests"},
	{"token", "token", "tokens"},
}

// About says what was audited, where, and with which trust. Passwords in addresses are
// removed. Empty fields are left out.
type About struct {
	Host    string   `json:"host,omitempty"`
	Command []string `json:"command,omitempty"` // with its arguments
	Targets []string `json:"targets,omitempty"`
	Record  string   `json:"record,omitempty"`
	Bundle  string   `json:"trust_bundle,omitempty"` // the file
}

// shown returns a copy without the parts of addresses that may be a password.
func (a About) shown() About {
	for _, list := range []*[]string{&a.Command, &a.Targets} {
		*list = slices.Clone(*list)
		for i, text := range *list {
			(*list)[i] = endpoint.Place(text)
		}
	}
	return a
}

// class says which number of a summary a certificate adds to. The classes are in order: a
// certificate that is found again counts as the worse one.
type class uint8

const (
	classFine class = iota + 1
	classInfo
	classWarn
	classPartial
	classCrit
)

// class returns the class of a row with a certificate.
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

// classByID has the class as which each certificate was counted.
type classByID map[cert.ID]class

// count adds a row to the numbers.
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
	switch {
	case !r.Leaf():
	case r.Bundle != nil:
		s.Judged++
	case r.Kind != kindRecord && !r.Cert.SelfSigned():
		s.Unjudged++
	}
	if r.Cert != nil && slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Check == "key-not-compared" }) {
		s.Uncompared++
	}
}

// countCertificate counts a certificate, or moves it to a worse class.
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

// move adds n to the numbers of a class.
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

// countDocument adds a document to the numbers, by its kind and its worst finding.
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

// Count returns how many rows have a finding of the given severity or a worse one, and how
// many could not be checked. A certificate that crypto/x509 refuses can be both.
func (s *Summary) Count(least Severity) (findings, unchecked int) {
	for severity := max(least, Info); severity <= Crit; severity++ {
		findings += s.rows[severity]
	}
	return findings, s.failed
}

// ReportTime returns when the report was made.
func (s *Summary) ReportTime() time.Time {
	if s.Made.IsZero() {
		return s.Now
	}
	return s.Made
}

// Forecast reports whether the moment of the report was in the future when it was made.
func (s *Summary) Forecast() bool { return !s.Made.IsZero() && s.Now.After(s.Made) }

// Moment returns a sentence that says which moment the report is of and when it was made, or
// "" if these are the same.
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

// String returns the summary in one line.
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
	more(s.Uncompared, "; ", "key not compared with its certificate", "keys not compared with their certificates")
	if s.Accepted > 0 || len(s.Stale) > 0 {
		text += "; " + wording.Plural(s.Accepted, "finding accepted", "findings accepted")
		more(len(s.Stale), ", ", "acceptance for nothing", "acceptances for nothing")
	}
	return text
}

// Renderer writes a report. A renderer should keep nothing of a row that it has written,
// because a report may be larger than the memory.
type Renderer interface {
	// Row writes one row. It is called in the order of the report. An error ends the run.
	Row(r *Row) error
	// End writes what follows the rows. It is called once, also after an interruption.
	End(s *Summary) error
}
