package audit

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// document is what is no certificate, and yet says who until when: a request, a
// revocation list, a token. Inspect explains it; an audit passes it over, because
// nothing fails when it ends but what asks for it.
type document struct {
	what        string
	name        string
	from, until time.Time // zero: without a beginning, without an end
	details     []detail
	flaws       []flaw
	// verify looks for who signed it among certificates at hand; nil if there is
	// nothing to verify, or if that was done.
	verify func(among []*Certificate) (detail, *flaw)
}

type detail struct{ label, text string }

// flaw is a finding before it is known whether its check was asked for.
type flaw struct {
	check    string
	severity Severity
	text     string
}

func (d *document) add(label, format string, args ...any) {
	if text := fmt.Sprintf(format, args...); text != "" {
		d.details = append(d.details, detail{label, text})
	}
}

// documentTypes are the PEM blocks of documents (RFC 7468 sections 6 and 7).
var documentTypes = map[string]func([]byte) (*document, error){
	"CERTIFICATE REQUEST":     readRequest,
	"NEW CERTIFICATE REQUEST": readRequest,
	"X509 CRL":                readRevocationList,
}

func documentInDER(data []byte, with *opening) *document {
	if !with.documents {
		return nil
	}
	if doc, err := readRequest(data); err == nil {
		return doc
	}
	if doc, err := readRevocationList(data); err == nil {
		return doc
	}
	return nil
}

// judge is for documents what the table of checks is for certificates, and takes
// its words, remedies and citations from there.
func (d *document) judge(s *Subject, table []check, now time.Time) (found []Finding) {
	flaws := slices.Clone(d.flaws)
	if d.verify != nil {
		by, broken := d.verify(slices.Concat(s.Chain, s.Bundle))
		d.details = append(d.details, by)
		if broken != nil {
			flaws = append(flaws, *broken)
		}
	}
	if !d.until.IsZero() && !now.Before(d.until) {
		flaws = append(flaws, flaw{"expired", Crit, "over since " + span(now.Sub(d.until))})
	}
	if now.Before(d.from) {
		flaws = append(flaws, flaw{"not-yet-valid", Crit, "not valid for another " + span(d.from.Sub(now))})
	}
	for i := range table {
		for _, f := range flaws {
			if f.check == table[i].id {
				found = append(found, table[i].finding(f.severity, f.text))
			}
		}
	}
	return found
}

func (d *document) explain(line func(string, string, ...any), now time.Time) {
	line("kind", "%s", d.what)
	line("name", "%s", d.name)
	if valid := d.validity(now); valid != "" {
		line("valid", "%s", valid)
	}
	for _, one := range d.details {
		line(one.label, "%s", one.text)
	}
}

// validity is "" for what has no dates at all.
func (d *document) validity(now time.Time) string {
	var parts []string
	if !d.from.IsZero() {
		parts = append(parts, "from "+at(d.from))
	}
	switch {
	case d.until.IsZero() && d.from.IsZero():
		return ""
	case d.until.IsZero():
		parts = append(parts, "without an end")
	case now.Before(d.until):
		parts = append(parts, "to "+at(d.until)+", "+span(d.until.Sub(now))+" left")
	default:
		parts = append(parts, "to "+at(d.until)+", over for "+span(now.Sub(d.until)))
	}
	return strings.Join(parts, " ")
}

// jsonDocument are the same details for programs, as text.
type jsonDocument struct {
	What       string            `json:"what"`
	Name       string            `json:"document_name"`
	ValidFrom  time.Time         `json:"valid_from,omitzero"`
	ValidUntil time.Time         `json:"valid_until,omitzero"`
	Details    map[string]string `json:"details"`
}

// appendJSON writes the members that a row has in place of those of a certificate.
func (d *document) appendJSON(b []byte) []byte {
	text, _ := json.Marshal(d.forJSON()) // texts and times of this era do not fail
	return plainJSON(append(b, ','), text[1:len(text)-1])
}

func (d *document) forJSON() *jsonDocument {
	out := &jsonDocument{What: d.what, Name: d.name, ValidFrom: d.from.UTC(), ValidUntil: d.until.UTC(), Details: map[string]string{}}
	for _, one := range d.details {
		out.Details[one.label] = one.text
	}
	return out
}
