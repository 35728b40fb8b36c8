package devcerts

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/humantime"
)

// report prints one line for each certificate, as soon as it is settled, or
// all of them as JSON at the end.
type report struct {
	u     *ui.UI
	table *ui.Table // nil with JSON
	err   error
}

// newReport prints nothing yet.
func newReport(u *ui.UI, format string) *report {
	r := &report{u: u}
	if format == output.Table {
		r.table = u.NewTable("STATE", "PATH", "UNTIL", "REASON", "NAMES")
	}
	return r
}

// begin takes the widths from the plan: nobody should have to wait for the last
// line to see the first.
func (r *report) begin(p *plan) {
	if r.table == nil {
		return
	}
	for _, item := range p.items {
		r.table.Fit(string(replaced), item.dir, time.DateTime, item.why())
	}
	r.flush()
}

// line prints one certificate at once. With JSON it is printed at the end.
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

// flush keeps the first error: a reader that is gone must not stop the making.
func (r *report) flush() {
	if err := r.table.Flush(); r.err == nil {
		r.err = err
	}
}

// shownCertificate is a line in JSON.
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

// end prints the list in JSON, or returns what went wrong with printing the table.
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
