package ratelimit_test

import (
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/ratelimit"
	"github.com/artstore/artstore-pki/ca/policy"
)

func TestBuckets(t *testing.T) {
	start := time.Now()
	b := ratelimit.New[int](policy.Rate{PerSecond: 10, Burst: 40})
	for i := range 40 {
		if w := b.Take(1, start); w != 0 {
			t.Fatalf("request %d of the burst must wait %s", i, w)
		}
	}
	for range 3 { // refusals do not add up
		if w := b.Take(1, start); w <= 0 || w > 100*time.Millisecond {
			t.Errorf("beyond the burst: %s", w)
		}
	}
	if w := b.Take(2, start); w != 0 {
		t.Errorf("another key must wait %s", w)
	}
	if w := b.Take(1, start.Add(time.Second)); w != 0 {
		t.Errorf("a second later: %s", w)
	}
	for range 30 { // each costs a twentieth of the burst, also beyond its end
		b.Charge(3, start)
	}
	if w := b.Take(3, start); w < 2*time.Second || w > 2200*time.Millisecond {
		t.Errorf("after 30 failures: %s, want the time of 21 tokens", w)
	}
	// Requests that were let in together fail together: the debt ends at one burst.
	together := ratelimit.New[int](policy.Rate{PerSecond: 1000, Burst: 2000})
	for range 1200 {
		if w := together.Take(1, start); w != 0 {
			t.Fatalf("a request of the burst must wait %s", w)
		}
	}
	for range 1200 {
		together.Charge(1, start)
	}
	if w := together.Take(1, start); w < 2*time.Second || w > 2100*time.Millisecond {
		t.Errorf("after 1200 failures at one moment: %s, want the time of one burst", w)
	}
	off := ratelimit.New[int](policy.Rate{Burst: 1})
	for range 10 {
		if off.Charge(1, start); off.Take(1, start) != 0 {
			t.Error("a limit of 0 is none")
		}
	}
}

func TestBucketsAreBounded(t *testing.T) {
	b, now := ratelimit.New[int](policy.Rate{PerSecond: 1, Burst: 1}), time.Now()
	for i := range 20_000 {
		b.Take(i, now)
	}
	if n := b.Size(); n != 1<<14 {
		t.Errorf("%d keys", n)
	}
	if b.Take(19_999, now) == 0 || b.Take(0, now) != 0 {
		t.Error("not the least recently used were forgotten")
	}
}
