package devcerts

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/humantime"
)

// report prints one line for each certificate as soon as its outcome is known, or all of them as JSON
// at the end.
type report struct {
	u     *ui.UI
	table *ui.Table // nil with JSON
	err   error     // the first one of printing
}

// newReport returns a report in one of the two formats, which has printed nothing yet.
func newReport(u *ui.UI, format string) *report {
	r := &report{u: u}
	if format == output.Table {
		r.table = u.NewTable("STATE", "PATH", "UNTIL", "REASON", "NAMES")
	}
	return r
}

// begin prints the heading, with columns as wide as the plan needs, so that the first line can be
// printed before the last one is known.
func (r *report) begin(p *plan) {
	if r.table == nil {
		return
	}
	for _, item := range p.items {
		r.table.Fit(string(replaced), item.dir, time.DateTime, item.why())
	}
	r.flush()
}

// line prints one certificate at once. With JSON it does nothing: end prints all of them.
func (r *report) line(item *certificate) {
	if r.table == nil {
		return
	}
	until := "-"
	if !item.until.IsZero() {
		until = humantime.Stamp(item.until)
	}
	r.table.Row(string(item.action), item.dir, until, item.why(), strings.Join(item.profile.Names, " "))
	r.flush()
}

// flush prints the rows and keeps the first error for end, because certificates are made also if
// nobody reads the table any more.
func (r *report) flush() {
	if err := r.table.Flush(); r.err == nil {
		r.err = err
	}
}

// shownCertificate is a certificate in the JSON output.
type shownCertificate struct {
	Service string     `json:"service"`
	Fixture string     `json:"fixture,omitempty"`
	State   itemAction `json:"state"`
	Reasons []string   `json:"reasons,omitempty"`
	Names   []string   `json:"names"`
	Until   *time.Time `json:"not_after,omitempty"`
	Cert    string     `json:"cert"`
	Key     string     `json:"key"`
	CA      string     `json:"ca"`
	Error   string     `json:"error,omitempty"`
}

// end prints the certificates as JSON, or returns the first error of printing the table.
func (r *report) end(p *plan) error {
	if r.table != nil {
		return r.err
	}
	list := make([]shownCertificate, len(p.items))
	for n, item := range p.items {
		file := func(name string) string { return filepath.Join(item.dir, name) }
		c := shownCertificate{
			Service: item.service, Fixture: item.fixture, State: item.action, Reasons: item.reasons, Names: item.profile.Names,
			Cert: file("tls.crt"), Key: file("tls.key"), CA: file("ca.crt"),
		}
		if !item.until.IsZero() {
			until := item.until.UTC()
			c.Until = &until
		}
		if item.err != nil {
			c.Error = item.err.Error()
		}
		list[n] = c
	}
	return r.u.JSON(map[string]any{"schema_version": 1, "certificates": list})
}
