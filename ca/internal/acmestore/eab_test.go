package acmestore_test

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smallstep/certificates/acme"

	"github.com/artstore/artstore-pki/ca/internal/acmestore"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/store"
)

func newEAB(t testing.TB, s *replica, life time.Duration, profiles ...string) (record.EABKey, []byte) {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Millisecond)
	k, secret, err := s.acme.NewEABKey(t.Context(), "operator", record.EABKey{Profiles: profiles, Note: "rack 4", Created: now, Expires: now.Add(life)})
	if err != nil {
		t.Fatal(err)
	}
	return k, secret
}

func boundAccount(t testing.TB, a *acmestore.Store, eab string) (*acme.Account, error) {
	t.Helper()
	acc := &acme.Account{Key: acmeKey(t), Status: acme.StatusValid, ProvisionerName: "acme"}
	return acc, a.CreateBoundAccount(t.Context(), acc, eab)
}

// A secret is the value of an option of clients: one in 64 would look like another
// option if nothing was done.
func TestEABSecretIsNoOption(t *testing.T) {
	for range 2000 {
		if text := base64.RawURLEncoding.EncodeToString(acmestore.NewEABSecret()); text[0] == '-' {
			t.Fatalf("%.4s…", text)
		}
	}
}

// A key binds one account, however many replicas are asked at once, and its secret
// is gone from then on.
func TestEABOnce(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		one, two := open(t, where), open(t, where)
		k, secret := newEAB(t, one, time.Hour, "web", "api")
		if got, err := two.acme.EABSecret(t.Context(), k.ID); err != nil || !slices.Equal(got, secret) || len(secret) != 32 {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		var bound []*acme.Account
		for i := range 8 {
			wg.Go(func() {
				acc, err := boundAccount(t, []*replica{one, two}[i%2].acme, k.ID)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					bound = append(bound, acc)
				} else if !errors.Is(err, acmestore.ErrEABGone) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(bound) != 1 {
			t.Fatalf("one key bound %d accounts", len(bound))
		}
		if _, err := one.acme.EABSecret(t.Context(), k.ID); !errors.Is(err, acmestore.ErrEABGone) {
			t.Errorf("the secret of a used key: %v", err)
		}
		got, ok, err := two.acme.Binding(t.Context(), bound[0].ID)
		if err != nil || !ok || got.ID != k.ID || !slices.Equal(got.Profiles, []string{"web", "api"}) || got.Account != bound[0].ID || got.Bound.IsZero() || got.Note != "rack 4" {
			t.Errorf("%+v, %v, %v", got, ok, err)
		}
		list, err := one.acme.EABKeys(t.Context())
		if err != nil || len(list) != 1 || list[0].Account != bound[0].ID || !list[0].Expires.Equal(k.Expires) {
			t.Errorf("%+v, %v", list, err)
		}
		if n := leftSecrets(t, one, secret); n != 0 {
			t.Errorf("the secret is in %d rows", n)
		}
	})
}

// leftSecrets looks past all code of ours.
func leftSecrets(t testing.TB, s *replica, secret []byte) (n int) {
	t.Helper()
	err := s.db.Change(t.Context(), func(tx *sqldb.Txn) error {
		return tx.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM acme_eab_keys WHERE secret = ?`, secret).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Neither a key that expired nor one that was revoked binds anything, and an
// account keeps its first key.
func TestEABGone(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		s := open(t, where)
		a := s.acme
		late, _ := newEAB(t, s, -time.Minute, "web")
		revoked, secret := newEAB(t, s, time.Hour, "web")
		if err := s.acme.RevokeEABKey(t.Context(), "operator", revoked.ID, time.Now()); err != nil {
			t.Fatal(err)
		}
		if n := leftSecrets(t, s, secret); n != 0 {
			t.Errorf("the secret of a revoked key is in %d rows", n)
		}
		for _, id := range []string{late.ID, revoked.ID, "nobody"} {
			if _, err := a.EABSecret(t.Context(), id); !errors.Is(err, acmestore.ErrEABGone) {
				t.Errorf("secret: %v", err)
			}
			acc, err := boundAccount(t, a, id)
			if !errors.Is(err, acmestore.ErrEABGone) {
				t.Errorf("binding: %v", err)
			}
			if _, err := a.GetAccount(t.Context(), acc.ID); !acme.IsErrNotFound(err) {
				t.Errorf("the account was stored: %v", err)
			}
		}
		for _, id := range []string{revoked.ID, "nobody"} {
			if err := s.acme.RevokeEABKey(t.Context(), "operator", id, time.Now()); !errors.Is(err, record.ErrNotFound) {
				t.Errorf("revoking %s: %v", id, err)
			}
		}
		acc := acmeAccount(t, a)
		if _, ok, err := a.Binding(t.Context(), acc.ID); ok || err != nil {
			t.Errorf("an account without a key: %v, %v", ok, err)
		}
		first, _ := newEAB(t, s, time.Hour, "web")
		if err := a.CreateBoundAccount(t.Context(), acc, first.ID); err != nil {
			t.Fatalf("an account of before: %v", err)
		}
		next, _ := newEAB(t, s, time.Hour, "db")
		if err := a.CreateBoundAccount(t.Context(), acc, next.ID); !errors.Is(err, acmestore.ErrEABGone) {
			t.Errorf("a second key for an account: %v", err)
		}
		if _, err := a.EABSecret(t.Context(), next.ID); err != nil {
			t.Errorf("it used up the key: %v", err)
		}
		if err := s.acme.RevokeEABKey(t.Context(), "operator", first.ID, time.Now()); err != nil {
			t.Fatal(err)
		}
		if k, ok, err := a.Binding(t.Context(), acc.ID); !ok || err != nil || k.Revoked.IsZero() {
			t.Errorf("after the revocation: %+v, %v, %v", k, ok, err)
		}
	})
}

// An account whose order is under way makes no room; when all are such, a new one
// has to wait.
func TestACMESparesFirstOrders(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		s := open(t, where)
		a := s.acme
		first := acmeAccount(t, a)
		o := acmeOrder(t, a, first, "web.example")
		for range 510 {
			acmeAccount(t, a)
		}
		if _, err := a.GetAccount(t.Context(), first.ID); err != nil {
			t.Errorf("a client in its first order lost its account: %v", err)
		}
		ready(t, a, o)
		now := time.Now()
		if err := s.db.Change(t.Context(), func(tx *sqldb.Txn) error { // an order for everybody
			_, err := tx.ExecContext(t.Context(), `INSERT INTO acme_orders
				(id, account, provisioner, status, identifiers, asked, not_before, not_after, created_at, expires, sweep_at, problem, certificate)
				SELECT 'order of ' || id, id, 'acme', 'pending', '[]', 0, 0, 0, ?, ?, ?, '', '' FROM acme_accounts`,
				now.UnixMilli(), now.Add(time.Hour).UnixMilli(), now.Add(time.Hour).UnixMilli())
			return err
		}); err != nil {
			t.Fatal(err)
		}
		acc := &acme.Account{Key: acmeKey(t), Status: acme.StatusValid}
		if err := a.CreateAccount(t.Context(), acc); !errors.Is(err, acmestore.ErrTooManyAccounts) {
			t.Errorf("one more: %v", err)
		}
		k, _ := newEAB(t, s, time.Hour, "web")
		if _, err := boundAccount(t, a, k.ID); err != nil {
			t.Errorf("one with a key of the operator: %v", err)
		}
	})
}

// Accounts and orders from before external account keys and profiles go on.
func TestUpgradeBeforeEAB(t *testing.T) { postgres.Engines(t, upgradeBeforeEAB) }

func upgradeBeforeEAB(t *testing.T, where string) {
	s := open(t, where)
	acc := acmeAccount(t, s.acme)
	o := acmeOrder(t, s.acme, acc, "web.example")
	err := s.db.Change(t.Context(), func(tx *sqldb.Txn) (err error) {
		for _, text := range []string{
			`UPDATE acme_orders SET asked = 0`, // it kept the dates that the authority chose
			`DROP TABLE acme_eab_keys`, `ALTER TABLE acme_accounts DROP COLUMN eab`, `ALTER TABLE acme_orders DROP COLUMN profile`,
			`DROP TABLE trust_versions`, `DROP TABLE authorities`, `DROP TABLE trust_reports`, `DROP TABLE deliveries`, `CREATE TABLE lineages (lineage TEXT NOT NULL PRIMARY KEY, trust_digest TEXT NOT NULL, reported_at BIGINT NOT NULL)`, `DROP TABLE renewal_orders`,
			`DROP INDEX acme_orders_replaces`, `ALTER TABLE acme_orders DROP COLUMN replaces`,
			`DROP TABLE tally_state`, `DROP TABLE tallies`, `DROP TABLE holders`, `DROP TABLE fingerprints`,
			`DELETE FROM goose_db_version WHERE version_id >= 6`,
		} {
			if err == nil {
				_, err = tx.ExecContext(t.Context(), text)
			}
		}
		return err
	})
	if err = errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, where)
	if got, err := s.acme.GetAccount(t.Context(), acc.ID); err != nil || !got.IsValid() {
		t.Errorf("%+v, %v", got, err)
	}
	if _, bound, err := s.acme.Binding(t.Context(), acc.ID); bound || err != nil {
		t.Errorf("it is bound: %v, %v", bound, err)
	}
	if got, err := s.acme.Order(t.Context(), o.ID); err != nil || got.Profile != "" || !got.NotAfter.IsZero() || !got.NotBefore.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
	ready(t, s.acme, o)
	if _, err := s.Commit(t.Context(), store.Issuance{Certificate: newCertificate(t, "web"), Order: o.ID}); err != nil {
		t.Error(err)
	}
	newEAB(t, s, time.Hour, "web")
}

// Who made a key, which account it bound, and who revoked it stands in the log. A
// change that fails tells nothing.
func TestEABEvents(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		s := open(t, where)
		used, secret := newEAB(t, s, time.Hour, "web")
		revoked, _ := newEAB(t, s, time.Hour, "api")
		acc, err := boundAccount(t, s.acme, used.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := boundAccount(t, s.acme, used.ID); !errors.Is(err, acmestore.ErrEABGone) {
			t.Fatal(err)
		}
		for range 2 {
			err = s.acme.RevokeEABKey(t.Context(), "operator", revoked.ID, time.Now())
		}
		if !errors.Is(err, record.ErrNotFound) {
			t.Fatal(err)
		}
		events, err := s.Events(t.Context(), "acme-key", 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range events {
			got = append(got, e.Caller+": "+e.Detail)
			if strings.Contains(e.Detail, string(secret)) {
				t.Error("an event has the secret of a key")
			}
		}
		want := []string{
			`operator: key ` + used.ID + ` made for profiles ["web"]`,
			`operator: key ` + revoked.ID + ` made for profiles ["api"]`,
			`acme ` + acc.ID + `: key ` + used.ID + ` bound account ` + acc.ID,
			`operator: key ` + revoked.ID + ` revoked`,
		}
		if !slices.Equal(got, want) {
			t.Errorf("events:\n%q\nwant\n%q", got, want)
		}
	})
}
