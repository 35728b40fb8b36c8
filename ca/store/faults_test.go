package store_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/smallstep/certificates/acme"
	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/acmestore"
	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
)

// operations are what others do with a record, by name. Those that write say
// which tables they need: without one of them they must fail and leave nothing.
func operations(w *storetest.Log, acc *acme.Account, order *acme.Order) map[string]func(context.Context, *store.Store) error {
	now := w.Start.Add(time.Minute)
	leaf := storetest.Entry(9000, "storage")
	leaf.IssuedAt = now
	next := storetest.Entry(9001, "storage")
	next.Lineage, next.Previous, next.Kind = "1001", "1001", kinds.Renewed
	token := store.Token{Hash: [32]byte{9}, Expires: now}
	revocation := record.Revocation{Serial: "1002", RevokedAt: now, Caller: "test"}
	first := func(_ any, err error) error { return err }
	return map[string]func(context.Context, *store.Store) error{
		"commit": func(ctx context.Context, s *store.Store) error {
			return first(s.Commit(ctx, store.Issuance{Certificate: leaf, Token: token, Report: record.TrustReport{Digest: "d"}, Order: order.ID, MaxLive: 1000}))
		},
		"renew": func(ctx context.Context, s *store.Store) error {
			return first(s.Commit(ctx, store.Issuance{Certificate: next, Report: record.TrustReport{Digest: "d"}}))
		},
		"revoke": func(ctx context.Context, s *store.Store) error {
			return s.Revoke(ctx, store.RevokeRequest{Revocation: revocation, Token: token})
		},
		"revoke set": func(ctx context.Context, s *store.Store) error {
			return first(s.RevokeSet(ctx, record.Selection{Lineage: "1003"}, revocation))
		},
		"refuse": func(ctx context.Context, s *store.Store) error {
			return s.Refuse(ctx, record.Event{At: now, Caller: "test"})
		},
		"report": func(ctx context.Context, s *store.Store) error {
			return s.ReportTrust(ctx, record.TrustReport{Lineage: "1001", Serial: "1001", Digest: "e"})
		},
		"sweep": func(ctx context.Context, s *store.Store) error { return s.SweepTokens(ctx, now) },
		"prune": func(ctx context.Context, s *store.Store) error {
			return first(s.Prune(ctx, "test", now.AddDate(1, 0, 0), 10))
		},
		"ready": func(ctx context.Context, s *store.Store) error { return s.Ready(ctx) },
		"sequence": func(ctx context.Context, s *store.Store) error {
			_, _, err := s.Sequence(ctx, w.Key, translog.Head{})
			return err
		},

		"get": func(ctx context.Context, s *store.Store) error { return first(s.Get(ctx, "1001")) },
		"spent": func(ctx context.Context, s *store.Store) error {
			return first(s.Spent(ctx, store.Token{Hash: [32]byte{8}}, ""))
		},
		"list": func(ctx context.Context, s *store.Store) error {
			_, _, err := s.List(ctx, record.Query{Name: "storage"})
			return err
		},
		"search": func(ctx context.Context, s *store.Store) error {
			_, _, err := s.Search(ctx, record.Search{Prefix: "st"})
			return err
		},
		"selected": func(ctx context.Context, s *store.Store) error {
			return first(s.Selected(ctx, record.Selection{Service: "storage"}))
		},
		"events":  func(ctx context.Context, s *store.Store) error { return first(s.Events(ctx, kinds.Issued, 0, 10)) },
		"lineage": func(ctx context.Context, s *store.Store) error { return first(s.LineageRevoked(ctx, "1001")) },
		"mark":    func(ctx context.Context, s *store.Store) error { return first(s.RevocationMark(ctx)) },
		"revoked": func(ctx context.Context, s *store.Store) error {
			return first(s.RevokedBetween(ctx, record.RevokedRange{Issuer: "010203", UpTo: 9, Now: now}))
		},
		"live":  func(ctx context.Context, s *store.Store) error { return first(s.Live(ctx, "storage", now, 9)) },
		"by":    func(ctx context.Context, s *store.Store) error { return first(s.LiveByService(ctx, now)) },
		"empty": func(ctx context.Context, s *store.Store) error { return first(s.Empty(ctx)) },
		"head":  func(ctx context.Context, s *store.Store) error { return first(s.LogHead(ctx)) },
		"entry": func(ctx context.Context, s *store.Store) error { return first(s.LogEntry(ctx, w.Seen, 0)) },
		"proof": func(ctx context.Context, s *store.Store) error { return first(s.LogConsistency(ctx, w.Seen, 1, 3)) },
		"verify": func(ctx context.Context, s *store.Store) error {
			return first(s.VerifyLog(ctx, translog.Check{Verifier: w.Key.Verifier()}))
		},

		"acme account": func(ctx context.Context, s *store.Store) error {
			return first(acmestore.New(s.DB()).GetAccount(ctx, acc.ID))
		},
		"acme update": func(ctx context.Context, s *store.Store) error { return acmestore.New(s.DB()).UpdateAccount(ctx, acc) },
		"acme order": func(ctx context.Context, s *store.Store) error {
			return first(acmestore.New(s.DB()).Order(ctx, order.ID))
		},
		"acme orders": func(ctx context.Context, s *store.Store) error {
			return first(acmestore.New(s.DB()).GetOrdersByAccountID(ctx, acc.ID))
		},
		"acme authorization": func(ctx context.Context, s *store.Store) error {
			return first(acmestore.New(s.DB()).GetAuthorization(ctx, order.AuthorizationIDs[0]))
		},
		"acme nonce": func(ctx context.Context, s *store.Store) error { return first(acmestore.New(s.DB()).CreateNonce(ctx)) },
		"eab":        func(ctx context.Context, s *store.Store) error { return first(acmestore.New(s.DB()).EABKeys(ctx)) },
		"acme sweep": func(ctx context.Context, s *store.Store) error {
			return acmestore.New(s.DB()).Sweep(ctx, now.AddDate(1, 0, 0))
		},
	}
}

// faultyWorld has something of everything.
func faultyWorld(t *testing.T, where string) (*storetest.Log, map[string]func(context.Context, *store.Store) error) {
	t.Helper()
	w := storetest.NewLog(t, where)
	w.Issue(4)
	w.Sequence()
	w.Issue(1)
	acc, order := acmeOrder(t, acmestore.New(w.Store.DB()))
	return w, operations(w, acc, order)
}

// acmeOrder stores an account with an order for one name.
func acmeOrder(t *testing.T, a *acmestore.Store) (*acme.Account, *acme.Order) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	acc := &acme.Account{Key: &jose.JSONWebKey{Key: key.Public()}, Status: acme.StatusValid}
	if err := a.CreateAccount(t.Context(), acc); err != nil {
		t.Fatal(err)
	}
	o := &acme.Order{AccountID: acc.ID, Status: acme.StatusPending, Identifiers: []acme.Identifier{{Type: acme.DNS, Value: "storage"}}, ExpiresAt: time.Now().Add(24 * time.Hour)}
	az := &acme.Authorization{ID: rand.Text(), AccountID: acc.ID, Identifier: o.Identifiers[0], Status: acme.StatusPending, ExpiresAt: o.ExpiresAt,
		Challenges: []*acme.Challenge{{ID: rand.Text(), AccountID: acc.ID, Type: acme.DNS01, Status: acme.StatusPending}}}
	if err := a.AddOrder(t.Context(), acmestore.NewOrder{Order: o, Authorizations: []*acme.Authorization{az}}); err != nil {
		t.Fatal(err)
	}
	stored, err := a.Order(t.Context(), o.ID)
	if err != nil {
		t.Fatal(err)
	}
	return acc, stored.Order
}

// TestClosedRecord: nothing answers as if all were well, and nothing hangs.
func TestClosedRecord(t *testing.T) { postgres.Engines(t, closedRecord) }

func closedRecord(t *testing.T, where string) {
	w, ops := faultyWorld(t, where)
	if err := w.Store.Close(); err != nil {
		t.Fatal(err)
	}
	for name, op := range ops {
		if err := op(t.Context(), w.Store); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := w.Store.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

// TestNothingHalfDone takes away one table after the other. An operation that
// fails in the middle has changed nothing in those that are left.
func TestNothingHalfDone(t *testing.T) {
	failed := map[string]int{}
	for _, table := range store.CopiedTables {
		t.Run(table, func(t *testing.T) {
			w, ops := faultyWorld(t, filepath.Join(t.TempDir(), "pki.db"))
			execText(t, w.Store, `ALTER TABLE `+table+` RENAME TO lost`)
			for name, op := range ops {
				before := counts(t, w.Store, table)
				err := op(t.Context(), w.Store)
				if err == nil {
					continue
				}
				failed[name]++
				if after := counts(t, w.Store, table); after != before {
					t.Errorf("%s failed (%v) and left %s, before it %s", name, err, after, before)
				}
			}
		})
	}
	for _, name := range []string{"commit", "renew", "revoke", "revoke set", "prune", "sequence", "refuse"} {
		if failed[name] < 2 {
			t.Errorf("%s failed %d times", name, failed[name])
		}
	}
}

func execText(t *testing.T, s *store.Store, text string) {
	t.Helper()
	if err := s.Change(t.Context(), func(tx *store.Txn) error { _, err := tx.ExecContext(t.Context(), text); return err }); err != nil {
		t.Fatal(err)
	}
}

// counts are the rows of all tables but one.
func counts(t *testing.T, s *store.Store, but string) string {
	t.Helper()
	all := map[string]int{}
	err := s.Change(t.Context(), func(tx *store.Txn) error {
		for _, table := range store.CopiedTables {
			var n int
			if table == but {
				continue
			}
			if err := tx.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM `+table).Scan(&n); err != nil {
				return err
			}
			all[table] = n
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(all)
}
