package main

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/printable"
)

// devReport prints one line for each certificate, as soon as it is settled, or
// all of them as JSON at the end.
type devReport struct {
	u          *ui
	json       bool
	paths, why int // widths of columns
	err        error
}

func newDevReport(u *ui, format string) (*devReport, error) {
	if format != outputTable && format != outputJSON {
		return nil, usagef("--%s %q: want %s or %s", flagOutput, printable.Clean(format), outputTable, outputJSON)
	}
	return &devReport{u: u, json: format == outputJSON}, nil
}

// begin takes the widths from the plan: nobody should have to wait for the last
// line to see the first.
func (r *devReport) begin(p *devPlan) {
	r.why = len("REASON")
	for _, item := range p.items {
		r.paths = max(r.paths, len(item.dir))
		r.why = max(r.why, len(item.why()))
	}
	r.row([]string{"STATE", "PATH", "UNTIL", "REASON", "NAMES"})
}

func (r *devReport) line(item *devItem) {
	until := "-"
	if !item.until.IsZero() {
		until = item.until.Local().Format(time.DateTime)
	}
	r.row([]string{string(item.verdict), item.dir, until, item.why(), strings.Join(item.profile.Names, " ")})
}

// row keeps the first error: a reader that is gone must not stop the making.
func (r *devReport) row(cells []string) {
	if r.json {
		return
	}
	var b strings.Builder
	for i, width := range []int{len(replaced), r.paths, len(time.DateTime), r.why, 0} {
		b.WriteString(cells[i])
		b.WriteString(strings.Repeat(" ", max(0, width-len(cells[i]))+2))
	}
	if err := r.u.print("%s", strings.TrimRight(b.String(), " ")); r.err == nil {
		r.err = err
	}
}

// devCertificate is a line in JSON.
type devCertificate struct {
	Service string     `json:"service"`
	Fixture string     `json:"fixture,omitempty"`
	State   verdict    `json:"state"`
	Reasons []string   `json:"reasons,omitempty"`
	Names   []string   `json:"names"`
	Until   *time.Time `json:"not_after,omitempty"`
	Cert    string     `json:"cert"`
	Key     string     `json:"key"`
	CA      string     `json:"ca"`
	Error   string     `json:"error,omitempty"`
}

func (r *devReport) end(p *devPlan) error {
	if !r.json {
		return r.err
	}
	list := make([]devCertificate, len(p.items))
	for n, item := range p.items {
		file := func(name string) string { return filepath.Join(item.dir, name) }
		c := devCertificate{
			Service: item.service, Fixture: item.fixture, State: item.verdict, Reasons: item.reasons, Names: item.profile.Names,
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
	return r.u.writeJSON(map[string]any{"schema_version": 1, "certificates": list})
}
