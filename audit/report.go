package audit

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"slices"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/internal/pemfile"
)

// Config says what to audit.
type Config struct {
	Sources []Source
	// Now is asked for the moment to judge each certificate at, when it is found;
	// nil means the present. A long walk outlives certificates.
	Now func() time.Time
	// How near its end a certificate that people renew is reported as expiring:
	// this long before it, or with this share of its life left (0.33 is a third),
	// whichever comes later. One of the two alone counts alone; neither means 30
	// days and a third for a warning, 7 days and a sixth for a critical finding.
	WarnBefore, CritBefore time.Duration
	WarnShare, CritShare   float64
	// Only names the checks to run, by id; none means all. Disable takes some away.
	// Ids that [Checks] does not list have no effect.
	Only, Disable []string
}

func (cfg *Config) criteria() criteria {
	return criteria{
		pools: pools{},
		warn:  cmp.Or(threshold{cfg.WarnBefore, cfg.WarnShare}, defaultWarn),
		crit:  cmp.Or(threshold{cfg.CritBefore, cfg.CritShare}, defaultCrit),
	}
}

func (cfg *Config) table() (out []check) {
	for _, c := range checks {
		if (len(cfg.Only) == 0 || slices.Contains(cfg.Only, c.id)) && !slices.Contains(cfg.Disable, c.id) {
			out = append(out, c)
		}
	}
	return out
}

// Report is what was found, worst first.
type Report struct {
	Now  time.Time // when it was complete
	Rows []Row
	// Unjudged counts leaves whose chain could not be judged for want of a bundle.
	Unjudged int
}

// Row is one certificate, or one place that could not be checked.
type Row struct {
	Subject
	State    string // a word: OK, WARN, CRIT, EXPIRED, NOT-YET, OVERDUE, ERROR
	Findings []Finding
	Judged   time.Time
	Also     []string // further places of the same CA certificate
}

const stateError = "ERROR"

// Run looks at everything and judges it. The only error is that of ctx.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	var mu sync.Mutex
	var found []Row
	var sources sync.WaitGroup
	for _, s := range cfg.Sources {
		sources.Go(func() {
			s.Collect(ctx, func(s Subject) {
				mu.Lock()
				defer mu.Unlock()
				found = append(found, Row{Subject: s, Judged: cfg.Now()})
			})
		})
	}
	sources.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r := &Report{Now: cfg.Now(), Rows: merge(found)}
	shareKeys(r.Rows)
	table, at := cfg.table(), cfg.criteria()
	for i := range r.Rows {
		row := &r.Rows[i]
		row.State = stateError
		if row.Cert != nil {
			at.now = row.Judged
			row.Findings, row.State = judge(&row.Subject, table, at)
		}
		if row.Err != nil && row.Severity() < Crit {
			row.State = stateError
		}
		if row.leaf() && row.Bundle == nil && row.Kind != kindRecord {
			r.Unjudged++
		}
	}
	slices.SortStableFunc(r.Rows, worstFirst)
	return r, nil
}

// merge makes one row of every CA certificate: it lies beside each leaf, and
// says the same thing everywhere. Leaves are never merged, each place counts.
func merge(found []Row) (rows []Row) {
	slices.SortStableFunc(found, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Place, b.Place), cmp.Compare(a.Block, b.Block))
	})
	first := map[string]int{}
	for _, s := range found {
		if s.Cert != nil && s.Cert.IsCA {
			id := pemfile.Fingerprint(s.Cert)
			if i, known := first[id]; known {
				rows[i].Also = append(rows[i].Also, s.Place)
				continue
			}
			first[id] = len(rows)
		}
		rows = append(rows, s)
	}
	return rows
}

func worstFirst(a, b Row) int {
	return cmp.Or(
		cmp.Compare(b.rank(), a.rank()),
		a.end().Compare(b.end()),
		cmp.Compare(a.Place, b.Place),
	)
}

// rank puts what could not be checked between critical findings and warnings.
func (r *Row) rank() int {
	switch {
	case r.Severity() == Crit:
		return 3
	case r.Err != nil:
		return 2
	}
	return int(r.Severity())
}

func (r *Row) end() time.Time {
	if r.Cert == nil {
		return time.Time{}
	}
	return r.Cert.NotAfter
}

// Severity is that of the worst finding.
func (r *Row) Severity() Severity {
	worst := fine
	for _, f := range r.Findings {
		worst = max(worst, f.Severity)
	}
	return worst
}

// Count returns how many rows have a worst finding of at least the given
// severity, and how many could not be checked. A certificate that was read in
// part only can be both.
func (r *Report) Count(least Severity) (findings, unchecked int) {
	for i := range r.Rows {
		if r.Rows[i].Err != nil {
			unchecked++
		}
		if r.Rows[i].Severity() >= least {
			findings++
		}
	}
	return findings, unchecked
}

// tally is a report in numbers.
type tally struct {
	Certificates int `json:"certificates"`
	Fine         int `json:"fine"`
	Warn         int `json:"warn"`
	Crit         int `json:"crit"`
	Unchecked    int `json:"unchecked"` // may be critical as well, if the dates could be read
	Unjudged     int `json:"chains_not_judged"`
}

func (r *Report) tally() tally {
	t := tally{Unjudged: r.Unjudged}
	t.Crit, t.Unchecked = r.Count(Crit)
	notFine, _ := r.Count(Warn)
	t.Warn = notFine - t.Crit
	for i := range r.Rows {
		row := &r.Rows[i]
		if row.Cert == nil {
			continue
		}
		t.Certificates++
		if row.Err == nil && row.Severity() == fine {
			t.Fine++
		}
	}
	return t
}

// name is what people call a certificate: its common name, else its first name.
func name(c *x509.Certificate) string {
	if c.Subject.CommonName != "" {
		return c.Subject.CommonName
	}
	if names := pemfile.Names(c); len(names) > 0 {
		return names[0]
	}
	return cmp.Or(c.Subject.String(), pemfile.Serial(c))
}

func issuerName(c *x509.Certificate) string {
	if bytes.Equal(c.RawIssuer, c.RawSubject) {
		return name(c)
	}
	return cmp.Or(c.Issuer.CommonName, c.Issuer.String())
}
