package acmestore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smallstep/certificates/acme"

	"github.com/artstore/artstore-pki/ca/internal/acmestore"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/store"
)

// Time ends nonces, orders and accounts; what a certificate needs stays until that ends.
func TestACMESweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := create(t, filepath.Join(t.TempDir(), "sweep.db"))
		sweepWorld(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func sweepWorld(t *testing.T, s *replica) {
	a := s.acme
	idle, busy := acmeAccount(t, a), acmeAccount(t, a)
	pending := acmeOrder(t, a, busy, "a.example")
	done := acmeOrder(t, a, busy, "b.example")
	ready(t, a, done)
	c := newCertificate(t, "b")
	c.IssuedAt, c.NotAfter = time.Now(), time.Now().Add(48*time.Hour)
	if _, err := s.Commit(t.Context(), store.Issuance{Certificate: c, Order: done.ID}); err != nil {
		t.Fatal(err)
	}
	nonce, err := a.CreateNonce(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.DeleteNonce(t.Context(), nonce); err != nil {
		t.Fatal(err)
	}
	stale, err := a.CreateNonce(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	exists := func(what string, err error, want bool) {
		t.Helper()
		if (err == nil) != want {
			t.Errorf("%s: %v, want it to exist: %v", what, err, want)
		}
	}
	look := func(after time.Duration, wantPending, wantDone, wantIdle, wantBusy bool) {
		t.Helper()
		time.Sleep(after)
		if err := s.acme.Sweep(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		exists("the pending order", second(a.Order(t.Context(), pending.ID)), wantPending)
		exists("the finished order", second(a.GetCertificate(t.Context(), c.Serial)), wantDone)
		exists("the unused account", second(a.GetAccount(t.Context(), idle.ID)), wantIdle)
		exists("the used account", second(a.GetAccount(t.Context(), busy.ID)), wantBusy)
	}
	look(time.Minute, true, true, true, true)
	time.Sleep(15 * time.Minute)
	if err := a.DeleteNonce(t.Context(), stale); err == nil {
		t.Error("an expired nonce was taken")
	}
	look(26*time.Hour, false, true, true, true)
	look(24*time.Hour, false, false, true, true)
	look(6*24*time.Hour, false, false, false, true)
	look(84*24*time.Hour, false, false, false, false)
	if _, err := s.Get(t.Context(), c.Serial); err != nil {
		t.Errorf("the certificate left the record: %v", err)
	}
}

// What strangers leave behind is bounded: the oldest makes room.
func TestACMELimits(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		s := open(t, where)
		a := s.acme
		proven := acmeAccount(t, a)
		o := acmeOrder(t, a, proven, "web.example")
		ready(t, a, o)
		if _, err := s.Commit(t.Context(), store.Issuance{Certificate: newCertificate(t, "web"), Order: o.ID}); err != nil {
			t.Fatal(err)
		}
		var last *acme.Order
		for i := range 25 {
			last = acmeOrder(t, a, proven, fmt.Sprintf("n%d.example", i))
		}
		list, err := a.GetOrdersByAccountID(t.Context(), proven.ID)
		if err != nil || len(list) != 20 || !slices.Contains(list, last.ID) {
			t.Errorf("%d unfinished orders of 25, want 20 with the newest; %v", len(list), err)
		}
		if _, err := a.Order(t.Context(), o.ID); err != nil {
			t.Errorf("a finished order made room: %v", err)
		}
		var ids []string
		for range 510 {
			ids = append(ids, acmeAccount(t, a).ID)
		}
		var left int
		for _, id := range ids {
			if _, err := a.GetAccount(t.Context(), id); err == nil {
				left++
			}
		}
		if _, err := a.GetAccount(t.Context(), ids[len(ids)-1]); err != nil || left != 500 {
			t.Errorf("%d accounts of strangers are left, want 500 with the newest; %v", left, err)
		}
		if _, err := a.GetAccount(t.Context(), proven.ID); err != nil {
			t.Errorf("an account with a certificate made room: %v", err)
		}
	})
}

// A database that fails is an error everywhere, never a wrong answer.
func TestACMEWithoutDatabase(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		s := open(t, where)
		a := s.acme
		acc := acmeAccount(t, a)
		o := acmeOrder(t, a, acc, "web.example")
		nonce, err := a.CreateNonce(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		for what, err := range map[string]error{
			"CreateAccount":           a.CreateAccount(ctx, acc),
			"GetAccount":              second(a.GetAccount(ctx, acc.ID)),
			"UpdateAccount":           a.UpdateAccount(ctx, acc),
			"AddOrder":                a.AddOrder(ctx, acmestore.NewOrder{Order: o}),
			"Order":                   second(a.Order(ctx, o.ID)),
			"GetOrdersByAccountID":    second(a.GetOrdersByAccountID(ctx, acc.ID)),
			"GetAuthorization":        second(a.GetAuthorization(ctx, "x")),
			"DeactivateAuthorization": a.DeactivateAuthorization(ctx, "x"),
			"ChangeKey":               a.ChangeKey(ctx, acc.ID, acc.Key, acc.Key),
			"EABSecret":               second(a.EABSecret(ctx, "x")),
			"Binding":                 third(a.Binding(ctx, acc.ID)),
			"NewEABKey":               third(s.acme.NewEABKey(ctx, "operator", record.EABKey{})),
			"EABKeys":                 second(s.acme.EABKeys(ctx)),
			"RevokeEABKey":            s.acme.RevokeEABKey(ctx, "operator", "x", time.Now()),
			"GetChallenge":            second(a.GetChallenge(ctx, "x", "y")),
			"UpdateChallenge":         a.UpdateChallenge(ctx, &acme.Challenge{}),
			"GetCertificate":          second(a.GetCertificate(ctx, "1")),
			"DeleteNonce":             a.DeleteNonce(ctx, nonce),
			"Sweep":                   s.acme.Sweep(ctx, time.Now()),
			"CreateNonce of another":  second(open(t, where).acme.CreateNonce(canceled(t))),
		} {
			if _, ours := errors.AsType[*acme.Error](err); err == nil || ours || acme.IsErrNotFound(err) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

func third[T, U any](_ T, _ U, err error) error { return err }

func canceled(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// What cannot be stored whole is not stored at all.
func TestACMENothingHalf(t *testing.T) {
	for _, gone := range []string{"acme_challenges", "acme_authorizations", "acme_nonces", "acme_accounts", "acme_orders", "secrets"} {
		t.Run(gone, func(t *testing.T) {
			where := filepath.Join(t.TempDir(), "half.db")
			s := open(t, where)
			a := s.acme
			acc := acmeAccount(t, a)
			o := acmeOrder(t, a, acc, "web.example")
			ready(t, a, o)
			db, err := sql.Open("sqlite", where)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = db.Close() }()
			if _, err := db.ExecContext(t.Context(), `ALTER TABLE `+gone+` RENAME TO gone`); err != nil {
				t.Fatal(err)
			}
			az := &acme.Authorization{ID: "az", Challenges: []*acme.Challenge{{ID: "ch"}}}
			next := &acme.Order{AccountID: acc.ID, Identifiers: o.Identifiers, Status: acme.StatusPending}
			added := a.AddOrder(t.Context(), acmestore.NewOrder{Order: next, Authorizations: []*acme.Authorization{az}})
			_, nonce := a.CreateNonce(t.Context())
			_, committed := s.Commit(t.Context(), store.Issuance{Certificate: newCertificate(t, "web"), Order: o.ID})
			fails := map[string]error{"sweeping": s.acme.Sweep(t.Context(), time.Now())}
			switch gone {
			case "acme_challenges", "acme_authorizations":
				fails = map[string]error{"an order": added}
				if _, err := a.Order(t.Context(), next.ID); err == nil {
					t.Error("half an order was stored")
				}
			case "acme_orders":
				fails["an order"], fails["a certificate"] = added, committed
			case "secrets":
				fails = map[string]error{"a nonce": nonce}
			case "acme_accounts":
				fails["a certificate"] = committed
				fails["an account"] = a.CreateAccount(t.Context(), &acme.Account{Key: acc.Key})
			}
			for what, err := range fails {
				if err == nil {
					t.Errorf("%s without %s went well", what, gone)
				}
			}
		})
	}
}
