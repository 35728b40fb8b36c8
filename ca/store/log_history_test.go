package store_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/artstore/artstore-pki/ca/internal/eventlog"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
)

// TestRolledBack: a whole older copy of the database is consistent in itself. A
// kept head tells, and so does the process that signed more.
func TestRolledBack(t *testing.T) {
	w := newLogWorld(t, t.TempDir()+"/pki.db")
	w.issue(20)
	w.sequence()
	old := t.TempDir() + "/old.db"
	w.vacuumInto(old)
	w.issue(5)
	kept := w.head()
	if err := w.s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.where, data, 0o600); err != nil {
		t.Fatal(err)
	}
	w.s = open(t, w.where)
	if report := w.verify(); len(report.Findings) > 0 {
		t.Errorf("an old copy is no sound log: %+v", report)
	}
	report := w.verify(kept)
	if len(report.Findings) != 1 || report.Findings[0].Fault != eventlog.FaultRolledBack || !strings.Contains(report.Findings[0].Text, "20 entries, a kept head signs 25") {
		t.Errorf("%+v", report)
	}
	if _, _, err := w.s.Sequence(t.Context(), w.key, kept); !errors.Is(err, store.ErrLog) {
		t.Errorf("the sequencer looked on: %v", err)
	}
	// From here on nothing is written, and no list is made that would lack revocations.
	if err := w.s.Ready(t.Context()); !errors.Is(err, store.ErrRolledBack) || w.s.Intact() {
		t.Errorf("a record that was rolled back takes a write: %v", err)
	}
	if _, err := w.s.RevocationMark(t.Context()); !errors.Is(err, store.ErrRolledBack) {
		t.Errorf("a record that was rolled back tells its revocations: %v", err)
	}
	// Another history of the same length, signed by the real key, as an authority would that was restarted over the copy.
	w.seen = translog.Head{}
	w.sequence()
	w.issue(5)
	w.sequence()
	if report = w.verify(kept); len(report.Findings) != 1 || report.Findings[0].Fault != eventlog.FaultRolledBack || !strings.Contains(report.Findings[0].Text, "first 25 entries") {
		t.Errorf("%+v", report)
	}
	if _, _, err := w.s.Sequence(t.Context(), w.key, kept); !errors.Is(err, store.ErrLog) {
		t.Errorf("the sequencer took another history for its own: %v", err)
	}
}

// TestSequencerSignsNoForgery: rewriting the edge of the tree and waiting for the
// next signature does not make a forged history genuine.
func TestSequencerSignsNoForgery(t *testing.T) { postgres.Engines(t, sequencerSignsNoForgery) }

func sequencerSignsNoForgery(t *testing.T, where string) {
	w := newLogWorld(t, where)
	w.issue(4)
	w.sequence()
	w.seen = translog.Head{} // a process that has just been started
	edge := make([]byte, tlog.HashSize)
	w.tamper(`UPDATE log_state SET edge = %s`, edge)
	w.issue(1)
	if _, _, err := w.s.Sequence(t.Context(), w.key, w.seen); !errors.Is(err, store.ErrLog) {
		t.Errorf("signed: %v", err)
	}
	w.tamper(`UPDATE log_state SET edge = %s`, edge[1:])
	if _, _, err := w.s.Sequence(t.Context(), w.key, w.seen); !errors.Is(err, store.ErrLog) {
		t.Errorf("a broken edge: %v", err)
	}
	w.tamper(`DELETE FROM log_state`)
	if _, _, err := w.s.Sequence(t.Context(), w.key, w.seen); err == nil {
		t.Error("a log without its head was begun anew over the entries that are there")
	}
	if report := w.verify(); report.Pending != 1 || len(report.Findings) == 0 || report.Findings[0].Fault != eventlog.FaultInserted {
		t.Errorf("%+v", report)
	}
}

// TestPrunedStaysVerifiable: rows go, the tree stays; what was not pruned by
// Prune cannot hide behind it.
func TestPrunedStaysVerifiable(t *testing.T) { postgres.Engines(t, prunedStaysVerifiable) }

func prunedStaysVerifiable(t *testing.T, where string) {
	w := newLogWorld(t, where)
	w.start = time.Now().Add(-30 * 24 * time.Hour).UTC()
	w.issue(10)
	w.revoke("1003")
	ctx, before := t.Context(), w.start.Add(2*time.Hour)
	if _, err := w.s.Prune(ctx, "operator", before, 4); !errors.Is(err, store.ErrUnsequenced) {
		t.Errorf("pruned what has no place yet: %v", err)
	}
	kept := w.head()
	// A living relative keeps a whole lineage: the revocation is what stops it from renewing.
	relative := entry(5000, "storage")
	relative.Lineage, relative.NotAfter, relative.IssuedAt = "1002", time.Now().Add(time.Hour), w.start.Add(time.Minute)
	commit(t, w.s, relative)
	w.sequence()
	total := 0
	for {
		n, err := w.s.Prune(ctx, "operator", before, 4)
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
	if _, err := w.s.Get(ctx, "1002"); err != nil {
		t.Errorf("a lineage lost its first certificate while it lives: %v", err)
	}
	if _, err := w.s.Get(ctx, "1003"); !errors.Is(err, record.ErrNotFound) {
		t.Error(err)
	}
	for range 2 { // with the prunes waiting, and with their place
		if report := w.verify(kept); len(report.Findings) > 0 || report.Pruned != 10 {
			t.Errorf("%+v", report)
		}
		w.sequence()
	}
	e, err := w.s.LogEntry(ctx, w.seen, 0)
	if err != nil || e.Payload != nil || tlog.CheckRecord(e.Proof, w.seen.Size, w.seen.Root, 0, e.Leaf) != nil {
		t.Errorf("a pruned entry: %+v, %v", e, err)
	}
	w.tamper(`UPDATE log_entries SET pruned = (SELECT max(pruned) FROM log_entries) WHERE idx = 1; DELETE FROM events WHERE serial = '1002'`)
	report := w.verify()
	if len(report.Findings) == 0 || report.Findings[0].Fault != eventlog.FaultAltered || report.Findings[0].Kind != "pruned" {
		t.Errorf("a row that was deleted hides among pruned ones: %+v", report)
	}
}
