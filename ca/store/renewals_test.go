package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
)

// TestRenewalOrders: an order is there with its event, or neither is; it concerns the newest
// certificate of each lineage at its time; and its number never comes again.
func TestRenewalOrders(t *testing.T) { postgres.Engines(t, renewalOrders) }

func renewalOrders(t *testing.T, where string) {
	s := storetest.Open(t, where)
	at := time.Now().UTC().Truncate(time.Millisecond)
	entry := func(n int, service, lineage string, issued time.Duration) record.Certificate {
		c := storetest.Entry(n, service)
		c.IssuedAt, c.NotBefore, c.NotAfter = at.Add(issued), at.Add(issued), at.Add(issued+time.Hour)
		if c.Lineage = c.Serial; lineage != "" {
			c.Lineage, c.Kind = lineage, kinds.Renewed
		}
		storetest.Commit(t, s, c)
		return c
	}
	first := entry(1, "storage", "", -40*time.Minute)
	entry(2, "storage", first.Lineage, -20*time.Minute) // the newest at the time of the order
	entry(3, "storage", first.Lineage, time.Minute)     // after it
	second := entry(4, "ingester", "", -10*time.Minute)
	entry(5, "ingester", "", -2*time.Hour) // has expired
	entry(6, "ingester", "", time.Minute)  // begins after the order

	wanted := json.RawMessage(`{"within":"30s"}`)
	order := record.RenewalOrder{At: at, By: at.Add(30 * time.Second), Caller: "operator", Matched: 2, Wanted: wanted}
	holders, err := s.Holders(t.Context(), order)
	if err != nil || len(holders) != 2 {
		t.Fatalf("%d holders, %v", len(holders), err)
	}
	if h := holders[0]; h.Certificate.Lineage != first.Lineage || h.Certificate.Serial == first.Serial || !h.Renewed {
		t.Errorf("the lineage that has renewed: %+v", h)
	}
	if h := holders[1]; h.Certificate.Serial != second.Serial || h.Renewed || !h.LastSeen.Equal(second.IssuedAt) {
		t.Errorf("the lineage that has not: %+v", h)
	}
	for name, o := range map[string]record.RenewalOrder{
		"service": {At: at, Service: "ingester"}, "lineage": {At: at, Lineage: second.Lineage}, "issuer and service": {At: at, Issuer: second.Issuer, Service: "ingester"},
	} {
		if holders, err := s.Holders(t.Context(), o); err != nil || len(holders) != 1 || holders[0].Certificate.Serial != second.Serial {
			t.Errorf("by %s: %d holders, %v", name, len(holders), err)
		}
	}

	before, err := s.Changes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.OrderRenewal(gone, order); !errors.Is(err, context.Canceled) {
		t.Errorf("an order that was given up: %v", err)
	}
	var ids []int64
	nonces := map[string]bool{"": true}
	for range 2 {
		id, err := s.OrderRenewal(t.Context(), order)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
		if after, err := s.Changes(t.Context()); err != nil || after == before || after.Orders != id {
			t.Errorf("the order is no change: %+v %v", after, err)
		}
		list, err := s.RenewalOrders(t.Context())
		if err != nil || len(list) != 1 || list[0].ID != id || !list[0].At.Equal(order.At) || !list[0].By.Equal(order.By) || string(list[0].Wanted) != string(wanted) || list[0].Matched != 2 {
			t.Errorf("%+v %v", list, err)
		}
		if nonces[list[0].Nonce] {
			t.Errorf("the nonce %q is empty or comes again", list[0].Nonce)
		}
		nonces[list[0].Nonce] = true
		if err := s.DropRenewalOrder(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	events, err := s.Events(t.Context(), kinds.RenewalOrdered, 0, 10)
	if err != nil || len(events) != 2 || ids[0] >= ids[1] || events[0].ID != ids[0] || events[1].ID != ids[1] {
		t.Errorf("orders %v, events %+v, %v", ids, events, err)
	}
	if list, err := s.RenewalOrders(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%+v %v", list, err)
	}
}

// TestListen: a change by one process is heard by another that listens, on PostgreSQL. With
// SQLite nobody can listen.
func TestListen(t *testing.T) { postgres.Engines(t, listen) }

func listen(t *testing.T, where string) {
	w := storetest.NewLog(t, where)
	w.Issue(1)
	other := storetest.Open(t, where)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	heard, ended := make(chan struct{}, 8), make(chan error, 1)
	go func() { ended <- other.Listen(ctx, func() { heard <- struct{}{} }) }()
	select {
	case err := <-ended:
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Error(err)
		}
		return
	case <-heard: // it listens from now on
	}
	w.Revoke("1001")
	<-heard
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
}
