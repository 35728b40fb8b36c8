package store_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
)

// TestCopy carries a record from SQLite to PostgreSQL and back, and each of them
// goes on where the one before ended.
func TestCopy(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	dir := t.TempDir()
	w := storetest.NewLog(t, filepath.Join(dir, "first.db"))
	first := w.Store
	second := storetest.Open(t, postgres.Database(t))
	third := storetest.Open(t, filepath.Join(dir, "third.db"))
	w.Issue(1200) // more than one statement takes
	w.Sequence()
	token := store.Token{Hash: [32]byte{1}, Expires: storetest.Base}
	last := storetest.Entry(2000, "a")
	last.IssuedAt = w.Start.Add(time.Duration(w.Issued) * time.Second)
	if _, err := first.Commit(t.Context(), store.Issuance{Certificate: last, Token: token, Report: record.TrustReport{Digest: "d"}}); err != nil {
		t.Fatal(err)
	}
	w.Revoke("1003") // this and the one before have no place in the log yet
	calls := 0
	for _, pair := range [][2]*store.Store{{first, second}, {second, third}} {
		counts, err := store.Copy(t.Context(), pair[0], pair[1], func(store.CopyProgress) { calls++ })
		if err != nil {
			t.Fatal(err)
		}
		if i := slices.IndexFunc(counts, func(c store.CopyProgress) bool { return c.Table == "certificates" }); i < 0 || counts[i].Rows != 1201 {
			t.Errorf("%v", counts)
		}
	}
	if calls < 10 {
		t.Errorf("progress was told %d times", calls)
	}
	want := everything(t, first)
	for i, s := range []*store.Store{second, third} {
		name, moves := []string{"PostgreSQL", "SQLite"}[i], i+1
		told, err := s.Events(t.Context(), kinds.Migrated, 0, 10)
		if err != nil || len(told) != moves || told[i].Detail != "from the record of "+w.Seen.String() {
			t.Errorf("%s: where it came from: %+v %v", name, told, err)
		}
		if got := everything(t, s); !reflect.DeepEqual(got, want) {
			t.Errorf("%s has another record", name)
		}
		report, err := s.VerifyLog(t.Context(), translog.Check{Verifier: w.Key.Verifier(), Kept: []translog.Head{w.Seen}})
		if err != nil || report.Checked != 1200 || report.Pending != int64(2+moves) || len(report.Findings) != 0 {
			t.Errorf("%s: log %+v %v", name, report, err)
		}
		if _, err := s.Commit(t.Context(), store.Issuance{Certificate: storetest.Entry(3000, "a"), Token: token}); !errors.Is(err, store.ErrTokenUsed) {
			t.Errorf("%s: a token that was spent before: %v", name, err)
		}
		storetest.Commit(t, s, storetest.Entry(4000, "b"))
		if err := s.Revoke(t.Context(), store.RevokeRequest{Revocation: record.Revocation{Serial: "1004", RevokedAt: storetest.Base}}); err != nil {
			t.Error(name, err)
		}
		if mark, err := s.RevocationMark(t.Context()); err != nil || mark != 2 {
			t.Errorf("%s: mark %d %v", name, mark, err)
		}
	}
}

// everything is what can be asked of a record.
func everything(t *testing.T, s *store.Store) (all []any) {
	t.Helper()
	for q := (record.Query{Limit: 1000, Now: storetest.Base}); ; {
		page, next, err := s.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page)
		if q.Cursor = next; next == "" {
			break
		}
	}
	events, err := s.Events(t.Context(), "", 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	events = slices.DeleteFunc(events, func(e record.Event) bool { return e.Kind == kinds.Migrated })
	revoked, err := s.RevokedBetween(t.Context(), record.RevokedRange{Issuer: "010203", UpTo: 10, Now: storetest.Base.AddDate(-1, 0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	return append(all, events, revoked)
}

// TestCopyAllOrNothing: what ends a copy leaves the target empty, and what is
// there is never added to.
func TestCopyAllOrNothing(t *testing.T) { postgres.Engines(t, copyAllOrNothing) }

func copyAllOrNothing(t *testing.T, where string) {
	source, target := storetest.Open(t, filepath.Join(t.TempDir(), "source.db")), storetest.Open(t, where)
	for i := range 600 {
		storetest.Commit(t, source, storetest.Entry(i, "a"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := store.Copy(ctx, source, target, func(c store.CopyProgress) {
		if c.Table == "certificates" {
			cancel()
		}
	}); err == nil {
		t.Error("a copy that was interrupted")
	}
	mustBeEmpty(t, target)
	wrote := false
	if _, err := store.Copy(t.Context(), source, target, func(store.CopyProgress) {
		if !wrote {
			storetest.Commit(t, source, storetest.Entry(700, "a"))
		}
		wrote = true
	}); !errors.Is(err, store.ErrChanged) {
		t.Errorf("a source that was written to: %v", err)
	}
	mustBeEmpty(t, target)
	if _, err := store.Copy(t.Context(), source, target, nil); err != nil {
		t.Error(err)
	}
	if _, err := store.Copy(t.Context(), source, target, nil); !errors.Is(err, store.ErrNotEmpty) {
		t.Errorf("a target with a record: %v", err)
	}
}

func mustBeEmpty(t *testing.T, s *store.Store) {
	t.Helper()
	if empty, err := s.Empty(t.Context()); err != nil || !empty {
		t.Errorf("the target is not empty: %v", err)
	}
}

// TestEveryTableIsCopied: a table that a migration adds is copied, or left out on purpose.
func TestEveryTableIsCopied(t *testing.T) { postgres.Engines(t, everyTableIsCopied) }

func everyTableIsCopied(t *testing.T, where string) {
	have, err := storetest.Open(t, where).Tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	known := append(slices.Clone(store.CopiedTables), store.NotCopied...)
	slices.Sort(known)
	if got, want := fmt.Sprint(have), fmt.Sprint(known); got != want {
		t.Errorf("the schema has %s; Copy knows of %s", got, want)
	}
}
