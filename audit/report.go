package audit

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"time"
)

// Config says what to audit.
type Config struct {
	Sources []Source
	// Report gets the rows.
	Report Renderer
	// Now is asked for the moment to judge each certificate at, when it is found;
	// nil means the present. A long walk outlives certificates.
	Now func() time.Time
	// How near its end a certificate that people renew is reported as expiring:
	// this long before it, or with this share of its life left (0.33 is a third),
	// whichever comes later. One of the two alone counts alone; neither means 30
	// days and a third for a warning, 7 days and a sixth for a critical finding.
	WarnBefore, CritBefore time.Duration
	WarnShare, CritShare   float64
	// MaxLifetime is the longest life of a leaf by the operator's own policy; 0 for none.
	MaxLifetime time.Duration
	// Lists are revocation lists that certificates are judged by, under the names
	// that the report has for them. One that is out of date has a row that says so.
	Lists map[string]*x509.RevocationList
	// Baseline are findings to leave out; nil for none. What it left out, and what
	// of it was found no more, the summary says.
	Baseline *Baseline
	// NewBaseline gets a baseline that accepts all findings of this run; nil: nobody wants one.
	NewBaseline io.Writer
	// Only names the checks to run, by id; none means all. Disable takes some away.
	// Ids that [Checks] does not list have no effect.
	Only, Disable []string
}

func (cfg *Config) criteria() criteria {
	return criteria{
		pools: &pools{}, known: &verified{}, longest: cfg.MaxLifetime,
		warn: cmp.Or(threshold{cfg.WarnBefore, cfg.WarnShare}, defaultWarn),
		crit: cmp.Or(threshold{cfg.CritBefore, cfg.CritShare}, defaultCrit),
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

// Row is one certificate, or one place that could not be checked.
type Row struct {
	Subject
	State    string // a word: OK, WARN, CRIT, EXPIRED, NOT-YET, OVERDUE, REVOKED, ERROR
	Findings []Finding
	Accepted []string // ids of checks whose findings the baseline has taken away
	Judged   time.Time
	Also     []string // further places of the same CA certificate
}

const stateError = "ERROR"

// Run looks at everything, judges it, and hands each row to the report when it
// is complete: in the order of the sources and of what each yields, but one row
// for every CA certificate at the end. It lies beside each leaf, and says the
// same thing everywhere; leaves are never merged, each place counts.
//
// The error is that of ctx, or of the renderer.
func Run(ctx context.Context, cfg Config) (*Summary, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := &run{cfg: &cfg, table: cfg.table(), at: cfg.criteria(), stop: cancel, authorities: map[[sha256.Size]byte]*Row{}}
	view := newView()
	r.joined, r.accepting = newJoined(r.table, view), newAccepting(cfg.Baseline, cfg.NewBaseline != nil)
	r.judging = newInOrder(r.collect)
	for _, name := range slices.Sorted(maps.Keys(cfg.Lists)) {
		ready := newRevocations(name, cfg.Lists[name])
		view.lists = append(view.lists, ready)
		if s := ready.subject(cfg.Now()); s != nil {
			r.add(*s)
		}
	}
	for _, s := range view.prepare(ctx, cfg.Sources) {
		s.Collect(ctx, r.add)
	}
	r.flush()
	r.judging.wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for _, row := range r.order {
		r.emit(row)
	}
	if r.failed == nil {
		r.failed = r.end()
	}
	return &r.sum, r.failed
}

func (r *run) end() error {
	r.sum.Now, r.sum.Stale, r.sum.Policy = r.cfg.Now(), r.accepting.stale(r.table), r.cfg.policy()
	if out := r.cfg.NewBaseline; out != nil {
		if err := r.accepting.write(out, r.sum.Now); err != nil {
			return err
		}
	}
	return r.cfg.Report.End(&r.sum)
}

// run is one call of [Run]. Subjects are judged side by side in batches, and
// become rows on one goroutine.
type run struct {
	cfg       *Config
	table     []check
	at        criteria
	joined    *joined
	accepting *accepting
	judging   *inOrder[[]Row]
	room      chan struct{}
	batch     []Row
	stop      context.CancelCauseFunc

	sum         Summary
	authorities map[[sha256.Size]byte]*Row
	order       []*Row // of authorities
	failed      error  // of the renderer
}

// batchSize is how many subjects are judged as one piece of work.
const batchSize = 64

func (r *run) add(s Subject) {
	at := s.known
	if at.IsZero() {
		at = r.cfg.Now()
	}
	r.batch = append(r.batch, Row{Subject: s, Judged: at})
	if len(r.batch) == batchSize {
		r.flush()
	}
}

func (r *run) flush() {
	if r.room == nil {
		r.room = make(chan struct{}, 2*runtime.GOMAXPROCS(0))
	}
	batch := r.batch
	r.batch = make([]Row, 0, batchSize)
	r.judging.do(r.room, func() []Row {
		for i := range batch {
			r.judge(&batch[i])
		}
		return batch
	})
}

func (r *run) judge(row *Row) {
	if row.doc != nil {
		row.Findings = row.doc.judge(&row.Subject, r.table, row.Judged)
	}
	if row.Cert == nil {
		return
	}
	at := r.at
	at.now = row.Judged
	row.Findings = judge(&row.Subject, r.table, at)
}

// collect takes judged rows in the order of the report.
func (r *run) collect(rows []Row) {
	for i := range rows {
		row := &rows[i]
		if row.Cert == nil || !row.Cert.isCA {
			r.emit(row)
			continue
		}
		first := r.authorities[row.Cert.fingerprint]
		if first == nil {
			kept := *row
			r.authorities[row.Cert.fingerprint] = &kept
			r.order = append(r.order, &kept)
			continue
		}
		first.Also = append(first.Also, row.Place)
	}
}

func (r *run) emit(row *Row) {
	if r.failed != nil {
		return
	}
	r.joined.add(row)
	r.accepting.apply(row)
	row.State = state(row.Findings)
	if row.Cert == nil && row.doc == nil || row.Err != nil && row.Severity() < Crit {
		row.State = stateError
	}
	r.sum.count(row)
	if r.failed = r.cfg.Report.Row(row); r.failed != nil {
		r.stop(r.failed)
	}
}

// Severity is that of the worst finding.
func (r *Row) Severity() Severity {
	worst := fine
	for _, f := range r.Findings {
		worst = max(worst, f.Severity)
	}
	return worst
}

// Summary is a report in numbers.
type Summary struct {
	Now          time.Time `json:"-"` // when it was complete
	Certificates int       `json:"certificates"`
	Fine         int       `json:"fine"` // with an Info at most
	Info         int       `json:"info"` // of the fine ones, those with one
	Warn         int       `json:"warn"`
	Crit         int       `json:"crit"`
	Unchecked    int       `json:"unchecked"` // may be critical as well, if the dates could be read
	// Unjudged counts leaves whose chain could not be judged for want of a bundle.
	Unjudged int `json:"chains_not_judged"`
	// Accepted counts findings that the baseline took away.
	Accepted int `json:"accepted"`
	// Stale are the lines of the baseline, as far as they matter, that nothing was found for.
	Stale []string `json:"stale,omitempty"`
	// Policy says in sentences what was judged by.
	Policy []string `json:"-"`
}

func (s *Summary) count(r *Row) {
	severity := r.Severity()
	switch {
	case severity == Crit:
		s.Crit++
	case severity == Warn:
		s.Warn++
	case r.Err == nil:
		s.Fine++
		if severity == Info {
			s.Info++
		}
	}
	s.Accepted += len(r.Accepted)
	if r.Err != nil {
		s.Unchecked++
	}
	if r.Cert != nil {
		s.Certificates++
	}
	if r.leaf() && r.Bundle == nil && r.Kind != kindRecord {
		s.Unjudged++
	}
}

// Count returns how many rows have a worst finding of at least the given
// severity, and how many could not be checked. A certificate that was read in
// part only can be both.
func (s *Summary) Count(least Severity) (findings, unchecked int) {
	if least <= Warn {
		findings = s.Warn
	}
	if least <= Info {
		findings += s.Info
	}
	return findings + s.Crit, s.Unchecked
}

// String is the report in one line.
func (s *Summary) String() string {
	text := fmt.Sprintf("%d certificates: %d fine, %d to watch, %d critical", s.Certificates, s.Fine, s.Warn, s.Crit)
	if s.Unchecked > 0 {
		text += fmt.Sprintf("; %d could not be checked", s.Unchecked)
	}
	if s.Unjudged > 0 {
		text += fmt.Sprintf("; %d chains not judged: no trust bundle", s.Unjudged)
	}
	if s.Accepted > 0 || len(s.Stale) > 0 {
		text += fmt.Sprintf("; %d findings accepted", s.Accepted)
	}
	if len(s.Stale) > 0 {
		text += fmt.Sprintf(", %d acceptances for nothing", len(s.Stale))
	}
	return text
}
