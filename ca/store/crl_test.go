package store_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
)

// inService is an unexpired certificate of a lineage.
func inService(n int, service string, lineage string) record.Certificate {
	c := storetest.Entry(n, service)
	c.NotAfter = storetest.Base.Add(100 * time.Hour)
	if lineage != "" {
		c.Lineage, c.Previous = lineage, lineage
	}
	return c
}

func revocation(serial string) record.Revocation {
	return record.Revocation{Serial: serial, RevokedAt: storetest.Base, Reason: 4, Note: "why", Caller: "test"}
}

// What was revoked up to a mark is complete up to it, whoever revokes at the
// same time; what has expired, and what is of another issuer, is not listed.
func TestMarks(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		s, other := storetest.Open(t, where), storetest.Open(t, where)
		ctx := t.Context()
		const n = 40
		for i := range n {
			storetest.Commit(t, s, inService(i, "a", ""))
		}
		foreign := inService(n, "a", "")
		foreign.Issuer = "bb"
		storetest.Commit(t, s, foreign)
		storetest.Commit(t, s, storetest.Entry(n+1, "a")) // expires at base+20h
		done := make(chan error, n+2)
		var wg sync.WaitGroup
		for i := range n + 2 {
			wg.Go(func() {
				done <- []*store.Store{s, other}[i%2].Revoke(ctx, store.RevokeRequest{Revocation: revocation(fmt.Sprint(1000 + i))})
			})
		}
		seen, after := map[string]bool{}, int64(0)
		look := func() {
			t.Helper()
			mark, err := s.RevocationMark(ctx)
			if err != nil {
				t.Fatal(err)
			}
			list, err := s.RevokedBetween(ctx, record.RevokedRange{Issuer: "aa", After: after, UpTo: mark, Now: storetest.Base.Add(50 * time.Hour)})
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range list {
				if seen[l.Serial] || l.Reason != 4 || !l.RevokedAt.Equal(storetest.Base) || !l.NotAfter.Equal(storetest.Base.Add(100*time.Hour)) {
					t.Errorf("again, or wrong: %+v", l)
				}
				seen[l.Serial] = true
			}
			after = mark
		}
		for range 20 {
			look()
		}
		wg.Wait()
		close(done)
		for err := range done {
			if err != nil {
				t.Error(err)
			}
		}
		if look(); len(seen) != n {
			t.Errorf("%d seen bit by bit, want %d", len(seen), n)
		}
		if err := s.Revoke(ctx, store.RevokeRequest{Revocation: revocation("1001")}); !errors.Is(err, store.ErrAlreadyRevoked) {
			t.Errorf("twice: %v", err)
		}
		if mark, err := s.RevocationMark(ctx); err != nil || mark != n+2 || mark != after {
			t.Errorf("a revocation that failed moved the mark to %d, %v", mark, err)
		}
	})
}

// A set is revoked as a whole, with what expired lately, and nothing of another.
func TestRevokeSet(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		s := storetest.Open(t, where)
		ctx := t.Context()
		for i := range 3 {
			storetest.Commit(t, s, inService(i, "a", ""))
		}
		storetest.Commit(t, s, inService(3, "a", "1001"))
		storetest.Commit(t, s, inService(4, "b", ""))
		storetest.Commit(t, s, storetest.Entry(20, "a")) // ends at base+10h
		storetest.Commit(t, s, storetest.Entry(2+4, "a"))
		serials := func(sel record.Selection) (out []string) {
			t.Helper()
			list, err := s.Selected(ctx, sel)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range list {
				out = append(out, c.Serial)
			}
			return out
		}
		since := storetest.Base.Add(5 * time.Hour)
		if got := serials(record.Selection{Lineage: "1001", Since: since}); !slices.Equal(got, []string{"1001", "1003"}) {
			t.Errorf("lineage: %q", got)
		}
		if n, err := s.RevokeSet(ctx, record.Selection{Lineage: "1001", Since: since}, revocation("")); err != nil || n != 2 {
			t.Errorf("lineage: %d %v", n, err)
		}
		if got := serials(record.Selection{Service: "a", Since: since}); !slices.Equal(got, []string{"1000", "1002", "1020"}) {
			t.Errorf("service: %q", got)
		}
		if n, err := s.RevokeSet(ctx, record.Selection{Service: "a", Since: since}, revocation("")); err != nil || n != 3 {
			t.Errorf("service: %d %v", n, err)
		}
		for _, sel := range []record.Selection{{Service: "a", Since: since}, {Service: "c"}, {Lineage: "9"}} {
			if _, err := s.RevokeSet(ctx, sel, revocation("")); !errors.Is(err, record.ErrNotFound) {
				t.Errorf("%+v: %v", sel, err)
			}
		}
		if c, err := s.Get(ctx, "1004"); err != nil || c.Revocation != nil {
			t.Errorf("another service: %+v %v", c.Revocation, err)
		}
		events, err := s.Events(ctx, "revoked", 0, 10)
		if err != nil || len(events) != 5 || events[0].Detail != "why" || events[0].Service != "a" {
			t.Errorf("events %+v, %v", events, err)
		}
	})
}

// While a service is revoked its certificates renew: none gets away.
func TestNothingRenewsOutOfASet(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		s, other := storetest.Open(t, where), storetest.Open(t, where)
		ctx := t.Context()
		for i := range 20 {
			storetest.Commit(t, s, inService(i, "a", ""))
		}
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				for k := range 3 {
					_, err := other.Commit(ctx, store.Issuance{Certificate: inService(100*(k+1)+i, "a", fmt.Sprint(1000+i))})
					if err != nil && !errors.Is(err, store.ErrRevoked) {
						t.Error(err)
					}
				}
			})
		}
		if _, err := s.RevokeSet(ctx, record.Selection{Service: "a"}, revocation("")); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if list, err := s.Selected(ctx, record.Selection{Service: "a"}); err != nil || len(list) != 0 {
			t.Errorf("%d certificates got away, %v", len(list), err)
		}
	})
}

func TestLive(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		s := storetest.Open(t, where)
		ctx := t.Context()
		for i := range 5 {
			storetest.Commit(t, s, inService(i, "a", ""))
		}
		storetest.Commit(t, s, inService(5, "b", ""))
		storetest.Commit(t, s, storetest.Entry(6, "a")) // ends at base+3h
		now := storetest.Base.Add(4 * time.Hour)
		one := func(most int) int {
			t.Helper()
			n, err := s.Live(ctx, "a", now, most)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		if n, capped := one(10), one(3); n != 5 || capped != 3 {
			t.Errorf("%d live, %d up to 3", n, capped)
		}
		if err := s.Revoke(ctx, store.RevokeRequest{Revocation: revocation("1001")}); err != nil {
			t.Fatal(err)
		}
		if n := one(5); n != 4 {
			t.Errorf("%d live after a revocation", n)
		}
		by, err := s.LiveByService(ctx, now)
		if err != nil || len(by) != 2 || by["a"] != 5 || by["b"] != 1 {
			t.Errorf("by service: %v, %v", by, err)
		}
		more := inService(7, "a", "")
		more.IssuedAt = now
		if _, err := s.Commit(ctx, store.Issuance{Certificate: more, MaxLive: 4}); !errors.Is(err, store.ErrTooMany) {
			t.Errorf("a fifth of four: %v", err)
		}
		again := inService(8, "a", "1002")
		again.IssuedAt, again.Kind = now, kinds.Renewed
		if _, err := s.Commit(ctx, store.Issuance{Certificate: again, MaxLive: 4}); err != nil {
			t.Errorf("a renewal: %v", err)
		}
		if _, err := s.Commit(ctx, store.Issuance{Certificate: more, MaxLive: 6}); err != nil {
			t.Errorf("a sixth of six: %v", err)
		}
	})
}
