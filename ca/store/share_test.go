package store_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
)

var errRefused = errors.New("refused")

func insertMark(ctx context.Context, tx *store.Txn, name string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO trust_reports (lineage, reporter, serial, successor, trust_digest, reported_at, due) VALUES (?, '', '', '', '', 0, 0)`, name)
	return err
}

func placeholders(t *testing.T, s *store.Store) (n int) {
	t.Helper()
	err := s.Change(t.Context(), func(tx *store.Txn) error {
		return tx.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM trust_reports`).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// crowd holds the turn of a record while others line up behind it, lets them
// go, and returns what each of them was told.
func crowd(t *testing.T, path string, others ...func(context.Context, *store.Txn) error) []error {
	t.Helper()
	told := make([]error, len(others))
	synctest.Test(t, func(t *testing.T) {
		s := storetest.Open(t, path)
		hold, held := make(chan struct{}), make(chan struct{})
		var group sync.WaitGroup
		group.Go(func() {
			_ = s.Change(t.Context(), func(*store.Txn) error { close(held); <-hold; return nil })
		})
		<-held
		for i, other := range others {
			group.Go(func() {
				told[i] = s.Change(t.Context(), func(tx *store.Txn) error { return other(t.Context(), tx) })
			})
			synctest.Wait() // it stands in line
		}
		close(hold)
		group.Wait()
	})
	return told
}

// TestCrowdSharesATransaction: one fails, one panics, and the others are
// committed at once: a second process sees nothing until the last has run.
func TestCrowdSharesATransaction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pki.db")
	other := storetest.Open(t, path)
	good := func(name string) func(context.Context, *store.Txn) error {
		return func(ctx context.Context, tx *store.Txn) error { return insertMark(ctx, tx, name) }
	}
	told := crowd(t, path, good("a"),
		func(ctx context.Context, tx *store.Txn) error {
			return errors.Join(insertMark(ctx, tx, "b"), errRefused)
		},
		good("c"),
		func(ctx context.Context, tx *store.Txn) error { _ = insertMark(ctx, tx, "d"); panic("d") },
		good("e"),
		func(ctx context.Context, _ *store.Txn) error {
			if n, err := other.Trusting(ctx); err != nil || n != 0 {
				t.Errorf("another process sees %d changes before the commit, %v", n, err)
			}
			return nil
		})
	for i, err := range told {
		switch {
		case i == 1 && !errors.Is(err, errRefused), i == 3 && (err == nil || !strings.Contains(err.Error(), "panic")):
			t.Errorf("change %d: %v", i, err)
		case i != 1 && i != 3 && err != nil:
			t.Errorf("change %d: %v", i, err)
		}
	}
	if n := placeholders(t, other); n != 3 {
		t.Errorf("%d changes are in the record, want 3", n)
	}
}

// TestWhoeverLeavesTheLineIsNotServed: a caller that gives up before its turn
// changes nothing, and one whose turn has come is told how it ended.
func TestWhoeverLeavesTheLineIsNotServed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pki.db")
	synctest.Test(t, func(t *testing.T) {
		s := storetest.Open(t, path)
		hold, held := make(chan struct{}), make(chan struct{})
		var group sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		group.Go(func() {
			err := s.Change(ctx, func(tx *store.Txn) error {
				close(held)
				<-hold
				return insertMark(ctx, tx, "begun")
			})
			if err != nil {
				t.Errorf("it had begun: %v", err)
			}
		})
		<-held
		group.Go(func() {
			err := s.Change(ctx, func(tx *store.Txn) error { return insertMark(ctx, tx, "waiting") })
			if !errors.Is(err, context.Canceled) {
				t.Errorf("it was waiting: %v", err)
			}
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(hold)
		group.Wait()
	})
	if n := placeholders(t, storetest.Open(t, path)); n != 1 {
		t.Errorf("%d changes, want the one that had begun", n)
	}
}

// TestTransactionThatSQLiteTookBack: when the whole transaction is gone in the
// middle of it, as with a full disk, nobody in it may be told that all is well.
func TestTransactionThatSQLiteTookBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pki.db")
	told := crowd(t, path,
		func(ctx context.Context, tx *store.Txn) error { return insertMark(ctx, tx, "before") },
		func(ctx context.Context, tx *store.Txn) error {
			_, err := tx.ExecContext(ctx, `INSERT OR ROLLBACK INTO trust_reports (lineage, reporter, serial, successor, trust_digest, reported_at, due) VALUES ('', '', '', '', '', NULL, 0)`)
			return err
		},
		func(ctx context.Context, tx *store.Txn) error { return insertMark(ctx, tx, "after") })
	if told[0] == nil || told[1] == nil {
		t.Errorf("told %v and %v", told[0], told[1])
	}
	if told[2] != nil {
		t.Errorf("the next transaction: %v", told[2])
	}
	if n := placeholders(t, storetest.Open(t, path)); n != 1 {
		t.Errorf("%d changes, want the last one", n)
	}
}

// TestFullDisk lets the file grow no more and then again.
func TestFullDisk(t *testing.T) {
	s := storetest.Open(t, filepath.Join(t.TempDir(), "pki.db"))
	issue := factory(t)
	pragma := func(text string) {
		t.Helper()
		if err := s.Change(t.Context(), func(tx *store.Txn) error { _, err := tx.ExecContext(t.Context(), text); return err }); err != nil {
			t.Fatal(err)
		}
	}
	pragma(`PRAGMA max_page_count = 1`) // rounded up to what there is
	var full error
	acknowledged := 0
	for range 100 {
		if _, full = s.Commit(t.Context(), issue()); full != nil {
			break
		}
		acknowledged++
	}
	if full == nil || !strings.Contains(full.Error(), "full") || !store.Unavailable(full) {
		t.Fatalf("%v, unavailable %v", full, store.Unavailable(full))
	}
	if page, _, err := s.List(t.Context(), record.Query{}); err != nil || len(page) != acknowledged {
		t.Errorf("%d in the record, %d acknowledged, %v", len(page), acknowledged, err)
	}
	pragma(`PRAGMA max_page_count = 1000000`)
	if _, err := s.Commit(t.Context(), issue()); err != nil {
		t.Errorf("there is room again: %v", err)
	}
}

// TestOneTokenManyBuyers: callers of two processes spend the same tokens at the
// same moment, each on a key of its own.
func TestOneTokenManyBuyers(t *testing.T) { postgres.Engines(t, oneTokenManyBuyers) }

func oneTokenManyBuyers(t *testing.T, where string) {
	processes := []*store.Store{storetest.Open(t, where), storetest.Open(t, where)}
	for round := range 10 {
		token := store.Token{Hash: sha256.Sum256([]byte{byte(round)}), Expires: storetest.Base}
		var group sync.WaitGroup
		bought := make([]string, 8)
		for i := range bought {
			group.Go(func() {
				c, err := processes[i%2].Commit(t.Context(), store.Issuance{Certificate: storetest.Entry(100*round+i, "a"), Token: token})
				if err != nil && !errors.Is(err, store.ErrTokenUsed) {
					t.Error(err)
				}
				bought[i] = c.Serial
			})
		}
		group.Wait()
		n := 0
		for _, serial := range bought {
			if serial != "" {
				n++
			}
		}
		if n != 1 {
			t.Errorf("round %d: the token bought %d certificates: %q", round, n, bought)
		}
	}
	if page, _, err := processes[0].List(t.Context(), record.Query{}); err != nil || len(page) != 10 {
		t.Errorf("%d certificates in the record, want 10: %v", len(page), err)
	}
}

// TestRevocationAgainstRenewals: one process renews a lineage over and over,
// another one revokes it. In the log no renewal stands behind the revocation.
func TestRevocationAgainstRenewals(t *testing.T) { postgres.Engines(t, revocationAgainstRenewals) }

func revocationAgainstRenewals(t *testing.T, where string) {
	renewing, revoking := storetest.Open(t, where), storetest.Open(t, where)
	for round := range 10 {
		first := storetest.Entry(10_000*round, "a")
		storetest.Commit(t, renewing, first)
		var group sync.WaitGroup
		for worker := range 3 {
			group.Go(func() {
				for n := 1; n < 1000; n++ { // on a busy machine the revocation may wait for long
					next := storetest.Entry(10_000*round+1000*worker+n, "a")
					next.Lineage, next.Previous, next.Kind = first.Serial, first.Serial, kinds.Renewed
					if _, err := renewing.Commit(t.Context(), store.Issuance{Certificate: next}); err != nil {
						if !errors.Is(err, store.ErrRevoked) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		if err := revoking.Revoke(t.Context(), store.RevokeRequest{Revocation: record.Revocation{Serial: first.Serial, RevokedAt: storetest.Base}}); err != nil {
			t.Error(err)
		}
		group.Wait()
	}
	revoked := map[string]bool{}
	for after, more := int64(0), true; more; {
		events, err := renewing.Events(t.Context(), "", after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			c, err := renewing.Get(t.Context(), e.Serial)
			if err != nil {
				t.Fatal(err)
			}
			if e.Kind == kinds.Renewed && revoked[c.Lineage] {
				t.Errorf("%s was renewed after its lineage had been revoked", c.Lineage)
			}
			revoked[c.Lineage] = revoked[c.Lineage] || e.Kind == "revoked"
			after = e.ID
		}
		more = len(events) > 0
	}
	if len(revoked) != 10 {
		t.Errorf("%d lineages", len(revoked))
	}
}

// TestRevocationMark: a list made at some mark has everything committed up to
// it, so a revocation that began later must not be committed before an earlier one.
func TestRevocationMark(t *testing.T) { postgres.Engines(t, revocationMark) }

func revocationMark(t *testing.T, where string) {
	one, other := storetest.Open(t, where), storetest.Open(t, where)
	storetest.Commit(t, one, storetest.Entry(1, "a"))
	storetest.Commit(t, one, storetest.Entry(2, "b"))
	revoke := func(serial string) store.RevokeRequest {
		return store.RevokeRequest{Revocation: record.Revocation{Serial: serial, RevokedAt: storetest.Base}}
	}
	overtook := make(chan struct{})
	err := one.Change(t.Context(), func(tx *store.Txn) error {
		if err := store.RevokeIn(t.Context(), tx, revoke("1001")); err != nil {
			return err
		}
		go func() {
			defer close(overtook)
			if err := other.Revoke(t.Context(), revoke("1002")); err != nil {
				t.Error(err)
			}
		}()
		select {
		case <-overtook:
			t.Error("the later revocation was committed first")
		case <-time.After(200 * time.Millisecond): // for something not to happen
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	<-overtook
	list, err := one.RevokedBetween(t.Context(), record.RevokedRange{Issuer: "aa", UpTo: 2, Now: storetest.Base.Add(-time.Hour)})
	if err != nil || len(list) != 2 || list[0].Serial != "1001" {
		t.Errorf("%v %v", list, err)
	}
	if mark, err := other.RevocationMark(t.Context()); err != nil || mark != 2 {
		t.Errorf("mark %d %v", mark, err)
	}
}
