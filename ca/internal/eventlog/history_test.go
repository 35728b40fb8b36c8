package eventlog_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/artstore/artstore-pki/ca/internal/eventlog"
	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
)

// TestRolledBack: a whole older copy of the database is consistent in itself. A
// kept head tells, and so does the process that signed more.
func TestRolledBack(t *testing.T) {
	w := storetest.NewLog(t, t.TempDir()+"/pki.db")
	w.Issue(20)
	w.Sequence()
	old := t.TempDir() + "/old.db"
	w.VacuumInto(old)
	w.Issue(5)
	kept := w.Head()
	if err := w.Store.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.Where, data, 0o600); err != nil {
		t.Fatal(err)
	}
	w.Store = storetest.Open(t, w.Where)
	if report := w.Verify(); len(report.Findings) > 0 {
		t.Errorf("an old copy is no sound log: %+v", report)
	}
	report := w.Verify(kept)
	if len(report.Findings) != 1 || report.Findings[0].Fault != eventlog.FaultRolledBack || !strings.Contains(report.Findings[0].Text, "20 entries, a kept head signs 25") {
		t.Errorf("%+v", report)
	}
	if _, _, err := w.Store.Sequence(t.Context(), w.Key, kept); !errors.Is(err, store.ErrLog) {
		t.Errorf("the sequencer looked on: %v", err)
	}
	// From here on nothing is written, and no list is made that would lack revocations.
	if err := w.Store.Ready(t.Context()); !errors.Is(err, store.ErrRolledBack) || w.Store.Intact() {
		t.Errorf("a record that was rolled back takes a write: %v", err)
	}
	if _, err := w.Store.RevocationMark(t.Context()); !errors.Is(err, store.ErrRolledBack) {
		t.Errorf("a record that was rolled back tells its revocations: %v", err)
	}
	// Another history of the same length, signed by the real key, as an authority would that was restarted over the copy.
	w.Seen = translog.Head{}
	w.Sequence()
	w.Issue(5)
	w.Sequence()
	if report = w.Verify(kept); len(report.Findings) != 1 || report.Findings[0].Fault != eventlog.FaultRolledBack || !strings.Contains(report.Findings[0].Text, "first 25 entries") {
		t.Errorf("%+v", report)
	}
	if _, _, err := w.Store.Sequence(t.Context(), w.Key, kept); !errors.Is(err, store.ErrLog) {
		t.Errorf("the sequencer took another history for its own: %v", err)
	}
}

// TestSequencerSignsNoForgery: rewriting the edge of the tree and waiting for the
// next signature does not make a forged history genuine.
func TestSequencerSignsNoForgery(t *testing.T) { postgres.Engines(t, sequencerSignsNoForgery) }

func sequencerSignsNoForgery(t *testing.T, where string) {
	w := storetest.NewLog(t, where)
	w.Issue(4)
	w.Sequence()
	w.Seen = translog.Head{} // a process that has just been started
	edge := make([]byte, tlog.HashSize)
	w.Tamper(`UPDATE log_state SET edge = %s`, edge)
	w.Issue(1)
	if _, _, err := w.Store.Sequence(t.Context(), w.Key, w.Seen); !errors.Is(err, store.ErrLog) {
		t.Errorf("signed: %v", err)
	}
	w.Tamper(`UPDATE log_state SET edge = %s`, edge[1:])
	if _, _, err := w.Store.Sequence(t.Context(), w.Key, w.Seen); !errors.Is(err, store.ErrLog) {
		t.Errorf("a broken edge: %v", err)
	}
	w.Tamper(`DELETE FROM log_state`)
	if _, _, err := w.Store.Sequence(t.Context(), w.Key, w.Seen); err == nil {
		t.Error("a log without its head was begun anew over the entries that are there")
	}
	if report := w.Verify(); report.Pending != 1 || len(report.Findings) == 0 || report.Findings[0].Fault != eventlog.FaultInserted {
		t.Errorf("%+v", report)
	}
}

// TestPrunedStaysVerifiable: rows go, the tree stays; what was not pruned by
// Prune cannot hide behind it.
func TestPrunedStaysVerifiable(t *testing.T) { postgres.Engines(t, prunedStaysVerifiable) }

func prunedStaysVerifiable(t *testing.T, where string) {
	w := storetest.NewLog(t, where)
	w.Start = time.Now().Add(-30 * 24 * time.Hour).UTC()
	w.Issue(10)
	w.Revoke("1003")
	ctx, before := t.Context(), w.Start.Add(2*time.Hour)
	if _, err := w.Store.Prune(ctx, "operator", before, 4); !errors.Is(err, store.ErrUnsequenced) {
		t.Errorf("pruned what has no place yet: %v", err)
	}
	kept := w.Head()
	// A living relative keeps a whole lineage: the revocation is what stops it from renewing.
	relative := storetest.Entry(5000, "storage")
	relative.Lineage, relative.NotAfter, relative.IssuedAt = "1002", time.Now().Add(time.Hour), w.Start.Add(time.Minute)
	storetest.Commit(t, w.Store, relative)
	w.Sequence()
	total := 0
	for {
		n, err := w.Store.Prune(ctx, "operator", before, 4)
		if err != nil {
			t.Fatal(err)
		}
		if total += n; n < 4 {
			break
		}
	}
	if total != 9 {
		t.Errorf("pruned %d, want 9", total)
	}
	if _, err := w.Store.Get(ctx, "1002"); err != nil {
		t.Errorf("a lineage lost its first certificate while it lives: %v", err)
	}
	if _, err := w.Store.Get(ctx, "1003"); !errors.Is(err, record.ErrNotFound) {
		t.Error(err)
	}
	for range 2 { // with the prunes waiting, and with their place
		if report := w.Verify(kept); len(report.Findings) > 0 || report.Pruned != 10 {
			t.Errorf("%+v", report)
		}
		w.Sequence()
	}
	e, err := w.Store.LogEntry(ctx, w.Seen, 0)
	if err != nil || e.Payload != nil || tlog.CheckRecord(e.Proof, w.Seen.Size, w.Seen.Root, 0, e.Leaf) != nil {
		t.Errorf("a pruned entry: %+v, %v", e, err)
	}
	w.Tamper(`UPDATE log_entries SET pruned = (SELECT max(pruned) FROM log_entries) WHERE idx = 1; DELETE FROM events WHERE serial = '1002'`)
	report := w.Verify()
	if len(report.Findings) == 0 || report.Findings[0].Fault != eventlog.FaultAltered || report.Findings[0].Kind != "pruned" {
		t.Errorf("a row that was deleted hides among pruned ones: %+v", report)
	}
}
