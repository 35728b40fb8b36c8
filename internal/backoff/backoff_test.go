package backoff_test

import (
	"math"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/backoff"
)

func TestStep(t *testing.T) {
	for _, c := range []struct {
		first, most time.Duration
		n           int
		want        time.Duration
	}{
		{time.Second, time.Minute, -1, time.Second},
		{time.Second, time.Minute, 0, time.Second},
		{time.Second, time.Minute, 3, 8 * time.Second},
		{time.Second, time.Minute, 6, time.Minute},
		{time.Second, time.Minute, math.MaxInt, time.Minute},
		{time.Minute, time.Second, 0, time.Second},
		{3, math.MaxInt64, 61, 3 << 61},
		{3, math.MaxInt64, 62, math.MaxInt64},
		{0, 0, 5, 0},
	} {
		if got := backoff.Step(c.first, c.most, c.n); got != c.want {
			t.Errorf("Step(%v, %v, %d) = %v, want %v", c.first, c.most, c.n, got, c.want)
		}
	}
}

func TestJitter(t *testing.T) {
	last := math.Nextafter(1, 0)
	for name, c := range map[string]struct{ got, want time.Duration }{
		"full, lowest":     {backoff.Full(time.Second, 0), 0},
		"full, middle":     {backoff.Full(time.Second, 0.5), 500 * time.Millisecond},
		"half, lowest":     {backoff.Half(time.Second, 0), 500 * time.Millisecond},
		"half, middle":     {backoff.Half(time.Second, 0.5), 750 * time.Millisecond},
		"between":          {backoff.Between(time.Second, 3*time.Second, 0.25), 1500 * time.Millisecond},
		"between, crossed": {backoff.Between(3*time.Second, time.Second, last), 3 * time.Second},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
	if got := backoff.Full(time.Hour, last); got >= time.Hour {
		t.Errorf("Full reaches the whole step: %v", got)
	}
}
