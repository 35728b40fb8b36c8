package lograte_test

import (
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/lograte"
)

func TestGate(t *testing.T) {
	var g lograte.Gate
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i, c := range []struct {
		after time.Duration
		want  int
	}{
		{0, 1}, {0, 0}, {time.Second, 0}, {lograte.Every - 1, 0}, {lograte.Every, 4}, {lograte.Every + 1, 0}, {time.Hour, 2}, {time.Hour, 0},
	} {
		if got := g.Pass(begin.Add(c.after)); got != c.want {
			t.Errorf("event %d after %s: a line for %d events, want %d", i, c.after, got, c.want)
		}
	}
}

// Each event is counted once, whoever reports it.
func TestGateConcurrent(t *testing.T) {
	var g lograte.Gate
	now := time.Now()
	var lines sync.Map
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() { lines.Store(i, g.Pass(now)) })
	}
	wg.Wait()
	sum := g.Pass(now.Add(lograte.Every))
	lines.Range(func(_, n any) bool { sum += n.(int); return true })
	if sum != 101 {
		t.Errorf("the lines stand for %d events, want 101", sum)
	}
}
