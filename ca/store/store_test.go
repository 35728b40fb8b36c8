package store_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/testpki"
)

func TestPagesAreComplete(t *testing.T) { postgres.Engines(t, pagesAreComplete) }

func pagesAreComplete(t *testing.T, where string) {
	s := storetest.Open(t, where)
	for i := range 25 {
		storetest.Commit(t, s, storetest.Entry(i, []string{"a", "b"}[i%2]))
	}
	if err := s.Revoke(t.Context(), store.RevokeRequest{Revocation: record.Revocation{Serial: "1003", RevokedAt: storetest.Base}}); err != nil {
		t.Fatal(err)
	}
	now := storetest.Base.Add(6 * time.Hour) // certificates 0 to 13 have expired
	for name, tc := range map[string]struct {
		q    record.Query
		want int
	}{
		"all": {record.Query{}, 25}, "service": {record.Query{Service: "a"}, 13}, "name": {record.Query{Name: "n7"}, 1},
		"common name": {record.Query{Name: "b"}, 12}, "issuer": {record.Query{Issuer: "AA"}, 25}, "no issuer": {record.Query{Issuer: "bb"}, 0},
		"expired": {record.Query{State: record.StateExpired}, 13}, "valid": {record.Query{State: record.StateValid}, 11}, "revoked": {record.Query{State: record.StateRevoked}, 1},
		"expires before": {record.Query{ExpiresBefore: storetest.Base.Add(2 * time.Hour)}, 4}, "soonest": {record.Query{SoonestFirst: true}, 25},
		"joined": {record.Query{Name: "a", State: record.StateValid, ExpiresBefore: storetest.Base.Add(9 * time.Hour)}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			var got []record.Certificate
			for q := tc.q; ; {
				q.Limit, q.Now = 3, now
				page, next, err := s.List(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, page...)
				if q.Cursor = next; next == "" {
					break
				}
			}
			if len(got) != tc.want {
				t.Errorf("%d rows, want %d", len(got), tc.want)
			}
			sorted := slices.IsSortedFunc(got, func(a, b record.Certificate) int {
				if tc.q.SoonestFirst {
					return a.NotAfter.Compare(b.NotAfter)
				}
				return b.NotAfter.Compare(a.NotAfter)
			})
			if !sorted {
				t.Error("not in order")
			}
		})
	}
	for _, q := range []record.Query{{State: "lost"}, {Cursor: "x"}, {Cursor: "1.y"}} {
		if _, _, err := s.List(t.Context(), q); err == nil {
			t.Errorf("%+v was accepted", q)
		}
	}
}

func TestTokenIsSpentOnOneKey(t *testing.T) { postgres.Engines(t, tokenIsSpentOnOneKey) }

func tokenIsSpentOnOneKey(t *testing.T, where string) {
	s := storetest.Open(t, where)
	ctx := t.Context()
	token := store.Token{Hash: sha256.Sum256([]byte("t")), Expires: storetest.Base.Add(time.Hour)}
	if _, err := s.Spent(ctx, token, "k"); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("unused: %v", err)
	}
	first := storetest.Entry(5, "a")
	if _, err := s.Commit(ctx, store.Issuance{Certificate: first, Token: token, MaxLive: 1}); err != nil {
		t.Fatal(err)
	}
	other := storetest.Open(t, where) // a second process sees it
	again := storetest.Entry(2, "a")
	again.KeyHash = first.KeyHash
	if got, err := other.Commit(ctx, store.Issuance{Certificate: again, Token: token, MaxLive: 1}); err != nil || got.Serial != first.Serial {
		t.Errorf("same key: %s %v", got.Serial, err)
	}
	unused := store.Token{Hash: sha256.Sum256([]byte("u")), Expires: storetest.Base.Add(time.Hour)}
	if _, err := s.Commit(ctx, store.Issuance{Certificate: again, Token: unused, MaxLive: 1}); !errors.Is(err, store.ErrTooMany) {
		t.Errorf("no room: %v", err)
	}
	if _, err := s.Spent(ctx, unused, "k"); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("a refused token is spent: %v", err)
	}
	if _, err := other.Commit(ctx, store.Issuance{Certificate: storetest.Entry(3, "a"), Token: token}); !errors.Is(err, store.ErrTokenUsed) {
		t.Errorf("other key: %v", err)
	}
	if _, err := s.Get(ctx, "1003"); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("a refused certificate is in the record: %v", err)
	}
	if err := s.SweepTokens(ctx, storetest.Base.Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Spent(ctx, token, "k"); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("swept: %v", err)
	}
}

// TestNothingHalfCommitted makes the last statement of the transaction fail by
// ending its context, and by a serial that is taken.
func TestNothingHalfCommitted(t *testing.T) { postgres.Engines(t, nothingHalfCommitted) }

func nothingHalfCommitted(t *testing.T, where string) {
	s := storetest.Open(t, where)
	storetest.Commit(t, s, storetest.Entry(1, "a"))
	token := store.Token{Hash: sha256.Sum256([]byte("t")), Expires: storetest.Base}
	if _, err := s.Commit(t.Context(), store.Issuance{Certificate: storetest.Entry(1, "a"), Token: token}); err == nil {
		t.Error("a serial was used twice")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Commit(ctx, store.Issuance{Certificate: storetest.Entry(2, "a"), Token: token}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := s.Spent(t.Context(), token, ""); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("the token is spent without a certificate: %v", err)
	}
	events, err := s.Events(t.Context(), "", 0, 10)
	if err != nil || len(events) != 1 {
		t.Errorf("events %v %v", events, err)
	}
}

func TestRevokedLineageTakesNoMore(t *testing.T) { postgres.Engines(t, revokedLineageTakesNoMore) }

func revokedLineageTakesNoMore(t *testing.T, where string) {
	s := storetest.Open(t, where)
	storetest.Commit(t, s, storetest.Entry(1, "a"))
	if err := s.Revoke(t.Context(), store.RevokeRequest{Revocation: record.Revocation{Serial: "1001", RevokedAt: storetest.Base}}); err != nil {
		t.Fatal(err)
	}
	next := storetest.Entry(2, "a")
	next.Lineage, next.Previous = "1001", "1001"
	if _, err := s.Commit(t.Context(), store.Issuance{Certificate: next}); !errors.Is(err, store.ErrRevoked) {
		t.Errorf("renewal: %v", err)
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pki.db")
	s := storetest.Open(t, path)
	if err := s.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	for _, p := range []string{path, path + "-wal", path + "-shm"} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", p, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Ready(t.Context()); err == nil {
		t.Error("ready after Close")
	}
	if _, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "no", "such", "dir.db")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	garbage := filepath.Join(t.TempDir(), "garbage.db")
	if err := os.WriteFile(garbage, []byte("this is not a database, it only looks long enough to be one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(t.Context(), garbage); err == nil {
		t.Error("garbage was opened")
	}
}

// TestRefuse: what was refused is an event.
func TestRefuse(t *testing.T) { postgres.Engines(t, refuse) }

func refuse(t *testing.T, where string) {
	s := storetest.Open(t, where)
	ctx, now := t.Context(), storetest.Base.Add(time.Hour)
	if err := s.Refuse(ctx, record.Event{At: now, Caller: "c", Rule: "names", Detail: "no"}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Events(ctx, "refused", 0, 10); err != nil || len(got) != 1 || got[0].Rule != "names" || !got[0].At.Equal(now) {
		t.Errorf("%+v %v", got, err)
	}
}

func chainFor(t testing.TB, serial int64) *x509.Certificate {
	t.Helper()
	return testpki.Issue(t, nil, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "a"}, DNSNames: []string{"a"}, NotBefore: storetest.Base, NotAfter: storetest.Base.Add(time.Hour),
	}, nil).Cert
}
