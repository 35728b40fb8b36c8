package lifetime_test

import (
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/lifetime"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestBackdate(t *testing.T) {
	for life, want := range map[time.Duration]time.Duration{
		24 * time.Hour:   time.Minute,
		10 * time.Minute: time.Minute,
		time.Minute:      6 * time.Second,
		10 * time.Second: time.Second,
		0:                0,
		-time.Hour:       0,
	} {
		if got := lifetime.Backdate(life); got != want {
			t.Errorf("Backdate(%v) = %v, want %v", life, got, want)
		}
	}
}

func TestRenewAt(t *testing.T) {
	for _, c := range []struct {
		life time.Duration
		u    float64
		want time.Duration
	}{
		{100 * time.Second, 0, 60 * time.Second},
		{100 * time.Second, 0.5, 65 * time.Second},
		{100 * time.Second, 1, 70 * time.Second},
		{24 * time.Hour, 0, 14*time.Hour + 24*time.Minute},
		{0, 0.5, 0},
		{-time.Hour, 0.5, 0},
	} {
		got := lifetime.RenewAt(t0, t0.Add(c.life), c.u).Sub(t0)
		if d := got - c.want; d > time.Microsecond || d < -time.Microsecond {
			t.Errorf("RenewAt(life %v, u %v) after %v, want %v", c.life, c.u, got, c.want)
		}
	}
}

// What Backdate did, IssuedAt undoes, for every life that a profile may have.
func TestIssuedAt(t *testing.T) {
	for _, life := range []time.Duration{10 * time.Second, 20 * time.Second, time.Minute, 9*time.Minute + 59*time.Second,
		10 * time.Minute, 10*time.Minute + time.Second, 11 * time.Minute, time.Hour, 24 * time.Hour, 90 * 24 * time.Hour} {
		before := t0.Add(-lifetime.Backdate(life))
		if got := lifetime.IssuedAt(before, t0.Add(life)); got.Sub(t0).Abs() > time.Millisecond {
			t.Errorf("life %v: issued %v off", life, got.Sub(t0))
		}
	}
	if got := lifetime.IssuedAt(t0, t0); !got.Equal(t0) {
		t.Errorf("no life: %v", got)
	}
}

func TestRenewalWindow(t *testing.T) {
	from, to := lifetime.RenewalWindow(t0.Add(-time.Minute), t0.Add(100*time.Minute))
	if from.Sub(t0) != 60*time.Minute || to.Sub(t0) != 70*time.Minute {
		t.Errorf("%v to %v after issue", from.Sub(t0), to.Sub(t0))
	}
}

func TestOverdue(t *testing.T) {
	begin, end := t0.Add(-time.Minute), t0.Add(100*time.Minute) // issued at t0
	for _, c := range []struct {
		at      time.Duration
		overdue bool
		reason  string
	}{
		{0, false, "renews by 2026-01-02T04:14:05Z"},
		{79 * time.Minute, false, "renews by 2026-01-02T04:14:05Z"},
		{81 * time.Minute, true, "past 0.80 of its life"},
		{100 * time.Minute, true, "expired 0s ago"},
		{2 * time.Hour, true, "expired 20m0s ago"},
	} {
		reason, overdue := lifetime.Overdue(begin, end, t0.Add(c.at))
		if overdue != c.overdue || reason != c.reason {
			t.Errorf("Overdue at %v = %q, %v; want %q, %v", c.at, reason, overdue, c.reason, c.overdue)
		}
	}
}

func TestGrace(t *testing.T) {
	for life, want := range map[time.Duration]time.Duration{
		-time.Hour: 0, time.Minute: 3 * time.Minute, 24 * time.Hour: 72 * time.Hour, 365 * 24 * time.Hour: lifetime.MaxGrace, 1<<63 - 1: lifetime.MaxGrace,
	} {
		if got := lifetime.Grace(life); got != want {
			t.Errorf("Grace(%v) = %v, want %v", life, got, want)
		}
	}
}
