package audit

import (
	"context"
	"crypto/sha256"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/ordered"
)

const stateError = "ERROR"

// Run looks at everything, judges it, and hands each row to the report when it
// is complete: in the order of the sources and of what each yields, but one row
// for every CA certificate at the end. It lies beside each leaf, and says the
// same thing everywhere; leaves are never merged, nor is
// what is used as one: each place counts.
//
// The error is that of cfg, of ctx, or of the renderer. When ctx ends, the report is
// finished with what was found until then, and says that it is not complete.
func Run(ctx context.Context, cfg Config) (*Summary, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := &run{cfg: &cfg, table: cfg.table(), at: cfg.newCriteria(), stop: cancel, counted: classByID{}, authorities: map[[sha256.Size]byte]*Row{}}
	seen := newInventory()
	seen.warn, seen.crit = r.at.warn, r.at.crit
	seen.omitted.keep = cfg.Explain
	r.inventory, r.lists.given = seen, map[string]bool{}
	r.cross, r.accepted = newCrossChecks(r.table, seen), newBaselineFilter(cfg.Baseline, cfg.NewBaseline != nil)
	r.judging = ordered.New(r.collect)
	for _, name := range slices.Sorted(maps.Keys(cfg.Lists)) {
		seen.lists = append(seen.lists, cert.NewList(name, cfg.Lists[name]))
		r.add(Subject{Kind: kindList, Place: name, Document: cert.ListDocument(cfg.Lists[name]), given: true})
	}
	for _, s := range seen.prepare(ctx, cfg.Sources) {
		if ctx.Err() == nil { // what was not looked for is not missing
			s.Collect(ctx, r.add)
		}
	}
	r.flush()
	r.judging.Wait()
	for _, row := range r.order {
		r.emit(row)
	}
	r.lists.all = true
	for i := range r.lists.rows {
		r.emitList(&r.lists.rows[i], seen)
	}
	r.emitLoneKeys()
	if r.failed == nil {
		r.sum.LeftOut = seen.omitted.all()
		r.failed = r.end(ctx.Err() == nil)
	}
	if ctx.Err() != nil && r.failed == nil {
		return nil, context.Cause(ctx)
	}
	return &r.sum, r.failed
}

func (r *run) end(complete bool) error {
	r.sum.Complete, r.sum.About = complete, r.cfg.About.shown()
	r.sum.Now, r.sum.Policy = r.cfg.Now(), r.cfg.policy()
	if r.cfg.Clock != nil {
		r.sum.Made = r.cfg.Clock()
	}
	if complete {
		r.sum.Stale = r.accepted.stale(r.table)
	}
	if out := r.cfg.NewBaseline; out != nil && complete {
		if err := r.accepted.write(out, r.sum.Now); err != nil {
			return err
		}
	}
	return r.cfg.Report.End(&r.sum)
}

// run is one call of [Run]. Subjects are judged side by side in batches, and
// become rows on one goroutine.
type run struct {
	cfg      *Config
	table    []check
	at       criteria
	cross    *crossChecks
	accepted *baselineFilter
	judging  *ordered.Pool[[]Row]
	room     chan struct{}
	batch    []Row
	stop     context.CancelCauseFunc

	sum         Summary
	counted     classByID
	authorities map[[sha256.Size]byte]*Row
	order       []*Row // of authorities
	loneKeys    []Row
	lists       heldLists
	inventory   *inventory
	failed      error // of the renderer
}

// batchSize is how many subjects are judged as one piece of work.
const batchSize = 64

func (r *run) add(s Subject) {
	if s.Kind == "" {
		s.Kind = kindOf(&s)
	}
	at := s.known
	if at.IsZero() {
		at = r.cfg.Now()
	}
	if s.Bundle == nil && s.Leaf() && s.Kind != kindRecord {
		s.Bundle = r.cross.seen.lent
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
	r.judging.Do(r.room, func() []Row {
		for i := range batch {
			r.checkRow(&batch[i])
		}
		return batch
	})
}

func (r *run) checkRow(row *Row) {
	if row.Document != nil && row.Key == nil && row.Document.List == nil {
		row.Findings = documentFindings(&row.Subject, r.table, row.Judged)
	}
	if row.Cert == nil {
		return
	}
	at := r.at
	at.now = row.Judged
	row.Findings = runChecks(&row.Subject, r.table, at)
}

// collect takes judged rows in the order of the report.
func (r *run) collect(rows []Row) {
	for i := range rows {
		row := &rows[i]
		r.lists.noteIssuer(row.Cert)
		r.lists.noteIssuers(row.Chain, 0)
		r.lists.noteIssuers(row.Bundle, 1)
		if row.Document != nil && row.Document.List != nil {
			r.collectList(row)
			continue
		}
		if row.Document != nil && row.Key != nil { // a key alone
			r.loneKeys = append(r.loneKeys, *row)
			continue
		}
		if !row.Authority() || row.Key != nil || row.Oddity != nil { // a key and a file are judged where they lie
			r.emit(row)
			continue
		}
		first := r.authorities[row.Cert.Fingerprint]
		if first == nil {
			kept := *row
			r.authorities[row.Cert.Fingerprint] = &kept
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
	r.cross.add(row)
	r.accepted.apply(row)
	row.State = stateWord(row.Findings)
	if row.Cert == nil && row.Document == nil || row.Err != nil && row.Severity() < Crit {
		row.State = stateError
	}
	r.sum.count(row, r.counted)
	if r.failed = r.cfg.Report.Row(row); r.failed != nil {
		r.stop(r.failed)
	}
}

// collectList keeps the row of a list for the end. One that was given has no second row
// where a walk finds it.
func (r *run) collectList(row *Row) {
	twice := r.lists.given[row.Place] && !row.given
	r.lists.given[row.Place] = r.lists.given[row.Place] || row.given
	if !twice && !r.lists.add(row) {
		r.emitList(row, r.inventory)
	}
}

// emitList reports a list, judged by all authorities that are known.
func (r *run) emitList(row *Row, v *inventory) {
	issuer := row.Document.List.RawIssuer
	row.Chain = slices.Concat(row.Chain, r.lists.issuers[string(issuer)], v.issuers[string(issuer)])
	var more []flaw
	if f, is := v.unused(row); is && r.lists.all {
		more = append(more, f)
	}
	row.Findings = documentFindings(&row.Subject, r.table, row.Judged, more...)
	row.Document.List = nil
	r.emit(row)
}

// emitLoneKeys reports keys alone, for which all certificates must be known.
func (r *run) emitLoneKeys() {
	for i := range r.loneKeys {
		row := &r.loneKeys[i]
		if flaws, shown := placeLoneKey(row, r.inventory, r.counted); shown {
			row.Findings = documentFindings(&row.Subject, r.table, row.Judged, flaws...)
			r.emit(row)
		}
	}
}
