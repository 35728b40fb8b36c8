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

// stateError is the state of a row that could not be checked and has no critical finding.
const stateError = "ERROR"

// Run asks all sources, judges each subject, and hands each row to the report when it is
// complete. Rows come in the order of the sources and of what each source yields. A CA
// certificate that was found in many places is one row, after all others; its Also lists
// the further places. Leaves are not merged: each place is a row of its own. Lists and
// keys without a certificate come last, because all certificates must be known for them.
//
// The error is that of cfg, of ctx, or of the renderer. When ctx ends, the report is
// finished with the rows until then, and says that it is not complete.
func Run(ctx context.Context, cfg Config) (*Summary, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := &run{cfg: &cfg, table: cfg.table(), timed: timed(cfg.table()), at: cfg.newCriteria(), stop: cancel, counted: classByID{}, authorities: map[[sha256.Size]byte]*Row{}}
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
		if ctx.Err() == nil { // an interrupted audit must not report the rest of a record as missing
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

// end completes the summary, writes the new baseline and ends the report. An incomplete
// run writes no baseline, because a later one would then report the rest as new.
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

// run is one call of [Run]. Subjects come one after the other, and are judged in batches
// and in parallel. The pool hands the batches back in order to one goroutine, which makes
// the rows: it owns the second group of fields until Run has waited for it.
type run struct {
	cfg      *Config
	table    []check
	timed    []check // those of the table that change with time
	at       criteria
	cross    *crossChecks
	accepted *baselineFilter
	judging  *ordered.Pool[[]Row]
	room     chan struct{} // bounds the batches that are judged or wait for their turn
	batch    []Row         // not handed to judging yet
	stop     context.CancelCauseFunc

	sum         Summary
	counted     classByID
	authorities map[[sha256.Size]byte]*Row // by fingerprint
	order       []*Row                     // the authorities, as they were found first
	loneKeys    []Row
	lists       heldLists
	inventory   *inventory
	failed      error // of the renderer; nothing is reported after it
}

// batchSize is how many subjects are judged as one piece of work.
const batchSize = 64

// add takes a subject of a source. It fills in the kind, the moment and the bundle of the
// record if the source has left them open.
func (r *run) add(s Subject) {
	if s.Kind == "" {
		s.Kind = kindOf(&s)
	}
	if s.kept != nil {
		s = s.again()
	}
	at := s.known
	if at.IsZero() {
		at = r.cfg.Now()
	}
	if s.Bundle == nil && s.Leaf() && s.Kind != kindRecord && s.kept == nil {
		s.Bundle = r.cross.seen.lent
	}
	r.batch = append(r.batch, Row{Subject: s, Judged: at})
	if len(r.batch) == batchSize {
		r.flush()
	}
}

// flush has the present batch judged, and begins the next one.
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

// checkRow runs the checks that need nothing but the row. Lists and keys without a
// certificate are judged at the end. It is called by several goroutines.
func (r *run) checkRow(row *Row) {
	if row.Document != nil && row.Key == nil && row.Document.List == nil {
		row.Findings = documentFindings(&row.Subject, r.table, row.Judged)
	}
	if row.Cert == nil {
		return
	}
	at := r.at
	at.now = row.Judged
	if row.kept != nil {
		row.Findings = row.kept.judge(&row.Subject, r.table, r.timed, at)
		return
	}
	row.Findings = runChecks(&row.Subject, r.table, at)
}

// collect takes judged rows in the order of the report. It emits a row at once, or keeps it
// for the end: lists and keys without a certificate, because a later certificate may be
// theirs, and authorities, because they are merged.
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
		if !row.Authority() || row.Key != nil || row.Oddity != nil { // findings about a key or a file belong to their place
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

// emit runs the checks that compare rows, applies the baseline, and reports the row. If the
// renderer fails, it ends the audit.
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

// collectList keeps the row of a list for the end. A list of Config.Lists that a walk finds
// as well has one row. If too many lists wait already, the list is reported at once.
func (r *run) collectList(row *Row) {
	twice := r.lists.given[row.Place] && !row.given
	r.lists.given[row.Place] = r.lists.given[row.Place] || row.given
	if !twice && !r.lists.add(row) {
		r.emitList(row, r.inventory)
	}
}

// emitList reports a list, judged with all authorities that are known so far.
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

// emitLoneKeys reports keys without a certificate. All certificates must be known.
func (r *run) emitLoneKeys() {
	for i := range r.loneKeys {
		row := &r.loneKeys[i]
		if flaws, shown := placeLoneKey(row, r.inventory, r.counted); shown {
			row.Findings = documentFindings(&row.Subject, r.table, row.Judged, flaws...)
			r.emit(row)
		}
	}
}
