package eventlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/translog"
)

// What can be wrong with the log, in one word each.
const (
	FaultAltered    = "altered"     // a row does not say what was logged
	FaultBackdated  = "backdated"   // its time was moved back, or is before that of its predecessors
	FaultDeleted    = "deleted"     // a row that was logged is gone
	FaultInserted   = "inserted"    // a row was never logged
	FaultMoved      = "moved"       // an entry stands in another one's place
	FaultRolledBack = "rolled back" // a head that was kept elsewhere knows more, or other entries
	FaultUnsigned   = "unsigned"    // the head, or what it signs, is not that of the log's key
)

const (
	verifyPage  = 500
	maxFindings = 1000
	// clockStep is how far the time of an entry may lie before that of an earlier one without
	// a finding. Events are ordered by their commits, but each replica dates them before the
	// commit and by its own clock.
	clockStep = 5 * time.Minute
)

// Verify makes every entry again from the rows that are stored now. It compares entries with
// their leaves, leaves with the signed head, and the beginning of the log with each kept
// head. It reads one snapshot, in pages, while an authority may go on writing. An error means
// that the log could not be read; faults of the log are in the report.
func (l *Log) Verify(ctx context.Context, check translog.Check) (report translog.Report, err error) {
	err = l.db.Snapshot(ctx, func(q sqldb.Querier) error {
		v := &logVerifier{q: q, check: check, misplacedLeaves: make(map[tlog.Hash]int), misplacedRows: make(map[tlog.Hash]int)}
		err := v.run(ctx)
		report = v.report
		return err
	})
	if err != nil {
		return translog.Report{}, fmt.Errorf("verifying the log: %w", err)
	}
	return report, nil
}

// logVerifier is one verification.
type logVerifier struct {
	q          sqldb.Querier
	check      translog.Check
	report     translog.Report
	tree       translog.Tree // over the leaves as they are stored
	broken     bool          // a leaf is missing, so no later root can be computed
	latest     time.Time     // latest time of an entry so far
	outOfOrder bool          // the entry before was out of order too

	badBlocks       []int64           // numbers of blocks of 256 leaves whose root is not the stored one
	misplacedLeaves map[tlog.Hash]int // leaf whose rows differ from it → index of its finding
	misplacedRows   map[tlog.Hash]int // hash of rows that differ from their leaf → index of the finding
	names           nameSet           // names in the rows of all certificates
}

// run makes the checks, in an order in which a later one can skip what an earlier one has
// found.
func (v *logVerifier) run(ctx context.Context) error {
	_, text, err := State(ctx, v.q)
	if err != nil && text == nil {
		return err
	}
	if text != nil {
		if v.report.Head, err = v.check.Verifier.Open(text); err != nil {
			v.add(translog.Finding{Fault: FaultUnsigned, Index: -1, Text: "the newest head: " + err.Error()})
		}
	}
	v.report.Size = v.report.Head.Size
	slices.SortFunc(v.check.Kept, func(a, b translog.Head) int { return cmp.Compare(a.Size, b.Size) })
	for _, step := range []func(context.Context) error{v.entries, v.root, v.pending, v.unlogged, v.verifyPrunes, v.nameIndex} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// add appends a finding, or only counts it when the report has maxFindings already.
func (v *logVerifier) add(f translog.Finding) {
	if len(v.report.Findings) >= maxFindings {
		v.report.More++
		return
	}
	v.report.Findings = append(v.report.Findings, f)
}

// newFinding begins a finding about a row.
func (r *logRow) newFinding(fault, text string) translog.Finding {
	f := translog.Finding{Fault: fault, Index: r.index, Text: text}
	if e := r.event; e != nil {
		f.At, f.Kind, f.Service, f.Serial = e.At, e.Kind, e.Service, e.Serial
	}
	return f
}

// entries verifies all events that have a place in the log.
func (v *logVerifier) entries(ctx context.Context) error {
	v.compareKept()
	for next := int64(0); ; {
		page, err := logPage(ctx, v.q, next, verifyPage)
		if err != nil {
			return err
		}
		for i := range page {
			row := &page[i]
			if row.index != next {
				v.missing(next, row.index-1)
			}
			next = row.index + 1
			if row.index >= v.report.Size {
				v.add(row.newFinding(FaultInserted, "it is behind the end of the signed log"))
				continue
			}
			if err := v.verifyEntry(ctx, row); err != nil {
				return err
			}
		}
		if v.check.Progress != nil {
			v.check.Progress(next, v.report.Size)
		}
		if len(page) == 0 {
			if next < v.report.Size {
				v.missing(next, v.report.Size-1)
			}
			return nil
		}
	}
}

// missing reports entries that are gone from the log, with their leaves.
func (v *logVerifier) missing(from, to int64) {
	v.broken = true
	v.add(translog.Finding{Fault: FaultDeleted, Index: from, Text: fmt.Sprintf("entries %d to %d are gone from the log", from, to)})
}

// verifyEntry checks one row and puts its leaf into the tree.
func (v *logVerifier) verifyEntry(ctx context.Context, row *logRow) error {
	if !v.broken {
		v.appendLeaf(ctx, row.leaf)
	}
	if row.pruned != 0 {
		v.report.Pruned++
		return nil
	}
	v.report.Checked++
	return v.verifyRow(ctx, row)
}

// appendLeaf appends a leaf to the tree, compares the root of each block of 256 leaves with
// the stored one, and the root of the whole tree with kept heads of this size.
func (v *logVerifier) appendLeaf(ctx context.Context, leaf tlog.Hash) {
	v.tree.Append(leaf, func(level int, n int64, root tlog.Hash) {
		if level != tileHeight {
			return
		}
		var stored []byte // nil if the row is absent, which is as bad as a difference
		err := v.q.QueryRowContext(ctx, `SELECT hash FROM log_nodes WHERE level = ? AND n = ?`, level, n).Scan(&stored)
		if err != nil || !slices.Equal(stored, root[:]) {
			v.badBlocks = append(v.badBlocks, n)
		}
	})
	v.compareKept()
}

// compareKept compares the tree with each kept head of the same size.
func (v *logVerifier) compareKept() {
	for _, kept := range v.check.Kept {
		if kept.Size == v.tree.Size() && kept.Root != v.tree.Root() {
			v.add(translog.Finding{Fault: FaultRolledBack, Index: -1, At: kept.Time,
				Text: fmt.Sprintf("the first %d entries are not those that the kept head signs", kept.Size)})
		}
	}
}

// verifyRow compares a row with its leaf, and its time with those before.
func (v *logVerifier) verifyRow(ctx context.Context, row *logRow) error {
	entry, err := row.rebuildEntry(ctx, v.q)
	switch {
	case errors.Is(err, errRowGone):
		v.add(row.missingFinding())
		return nil
	case errors.Is(err, errRowBroken):
		v.add(row.newFinding(FaultAltered, "the row cannot be read: "+row.broken.Error()))
		return nil
	case err != nil:
		return err
	}
	if i, ok := v.misplacedRows[row.leaf]; ok {
		v.report.Findings[i].Fault, v.report.Findings[i].Text = FaultMoved, fmt.Sprintf("its rows are those of entry %d", row.index)
	}
	if row.cert != nil {
		v.names.addAll(row.cert, row.certID)
	}
	before := v.latest.Sub(row.event.At)
	if made := entry.Leaf(); made != row.leaf {
		v.reportMismatch(row, made, before > clockStep)
		return nil
	}
	if before > clockStep {
		if !v.outOfOrder { // one finding for consecutive entries: a clock that was set back dates many
			v.add(row.newFinding(FaultBackdated, fmt.Sprintf("its time is %s before that of an earlier entry", before.Round(time.Second))))
		}
		v.outOfOrder = true
		return nil
	}
	v.outOfOrder = false
	if row.event.At.After(v.latest) {
		v.latest = row.event.At
	}
	return nil
}

// reportMismatch reports a row that differs from its leaf. made is the hash of the row. If it
// is the leaf of another entry with a mismatch, the rows of the two have changed places.
func (v *logVerifier) reportMismatch(row *logRow, made tlog.Hash, early bool) {
	f := row.diagnose(early)
	if i, ok := v.misplacedLeaves[made]; ok {
		f.Fault, f.Text = FaultMoved, fmt.Sprintf("its rows are those of entry %d", v.report.Findings[i].Index)
	}
	if n := len(v.report.Findings); n < maxFindings {
		v.misplacedLeaves[row.leaf], v.misplacedRows[made] = n, n
	}
	v.add(f)
}

// root compares the whole tree with the signed head, and reports kept heads that are larger
// than the log. The text names the blocks to look at, as far as the stored roots tell.
func (v *logVerifier) root(context.Context) error {
	if !v.broken && v.report.Size > 0 && v.tree.Root() != v.report.Head.Root {
		text := "the leaves are not those that the head signs: rows and leaves were changed together"
		for _, n := range v.badBlocks[:min(len(v.badBlocks), 5)] {
			text += fmt.Sprintf("; look among entries %d to %d", n<<tileHeight, (n+1)<<tileHeight-1)
		}
		v.add(translog.Finding{Fault: FaultAltered, Index: -1, At: v.report.Head.Time, Text: text})
	}
	for _, kept := range v.check.Kept {
		if kept.Size > v.report.Size {
			v.add(translog.Finding{Fault: FaultRolledBack, Index: -1, At: kept.Time,
				Text: fmt.Sprintf("the log has %d entries, a kept head signs %d", v.report.Size, kept.Size)})
		}
	}
	return nil
}

// pending verifies events that have no place in the log yet.
func (v *logVerifier) pending(ctx context.Context) error {
	for after := int64(-1); ; {
		page, err := pendingPage(ctx, v.q, after, verifyPage)
		if err != nil || len(page) == 0 {
			return err
		}
		for i := range page {
			v.report.Pending++
			after = page[i].id
			if err := v.verifyRow(ctx, &page[i]); err != nil {
				return err
			}
		}
	}
}

// unlogged reports events, certificates and revocations that no entry of the log tells of.
func (v *logVerifier) unlogged(ctx context.Context) error {
	const certs = `'` + kinds.Issued + `', '` + kinds.Renewed + `', '` + kinds.Rekeyed + `', '` + kinds.SelfIssued + `', '` + kinds.Entered + `'`
	for _, look := range []struct{ what, text string }{
		{"event", `SELECT e.at, e.kind, e.service, e.serial FROM events e WHERE NOT EXISTS (SELECT 1 FROM log_entries l WHERE l.event = e.id)
			AND NOT EXISTS (SELECT 1 FROM log_pending p WHERE p.event = e.id) ORDER BY e.id LIMIT ?`},
		{"certificate", `SELECT c.issued_at, c.kind, c.service, c.serial FROM certificates c
			WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.serial = c.serial AND e.serial <> '' AND e.kind IN (` + certs + `)) ORDER BY c.id LIMIT ?`},
		{"revocation", `SELECT r.revoked_at, '` + kinds.Revoked + `', '', r.serial FROM revocations r
			WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.serial = r.serial AND e.serial <> '' AND e.kind = '` + kinds.Revoked + `') ORDER BY r.id LIMIT ?`},
	} {
		rows, err := v.q.QueryContext(ctx, look.text, maxFindings)
		if err != nil {
			return err
		}
		found, err := sqldb.Collect(rows, func(f *translog.Finding) error {
			var at int64
			err := rows.Scan(&at, &f.Kind, &f.Service, &f.Serial)
			f.At = sqldb.FromMillis(at)
			return err
		})
		if err != nil {
			return err
		}
		for _, f := range found {
			f.Fault, f.Index, f.Text = FaultInserted, -1, "the "+look.what+" was never logged"
			v.add(f)
		}
	}
	return nil
}

// verifyPrunes reports entries that are marked as pruned by an event that is no prune.
func (v *logVerifier) verifyPrunes(ctx context.Context) error {
	rows, err := v.q.QueryContext(ctx, `SELECT MIN(p.idx), COUNT(*) FROM log_entries p WHERE p.pruned <> 0
		AND NOT EXISTS (SELECT 1 FROM events e WHERE e.id = p.pruned AND e.kind = '`+kinds.Pruned+`') GROUP BY p.pruned ORDER BY 1 LIMIT ?`, maxFindings)
	if err != nil {
		return err
	}
	found, err := sqldb.Collect(rows, func(f *translog.Finding) error {
		var n int64
		err := rows.Scan(&f.Index, &n)
		f.Text = fmt.Sprintf("the rows of this and %d more entries are gone, and no prune tells of it", n-1)
		return err
	})
	for _, f := range found {
		f.Fault = FaultDeleted
		v.add(f)
	}
	return err
}
