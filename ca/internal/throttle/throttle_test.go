package throttle_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/throttle"
)

const every = 10 * time.Minute

var begin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestDue(t *testing.T) {
	var th throttle.Throttle
	for i, c := range []struct {
		after time.Duration
		want  bool
	}{
		{0, true}, {0, false}, {every - time.Second, false}, {every, true}, {every, false}, {every - time.Hour, false}, {2 * every, true},
	} {
		if got := th.Due(begin.Add(c.after), every); got != c.want {
			t.Errorf("call %d after %s: due %v, want %v", i, c.after, got, c.want)
		}
	}
}

// Of many callers at one time one gets the turn.
func TestDueOnce(t *testing.T) {
	var th throttle.Throttle
	var turns atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if th.Due(begin, every) {
				turns.Add(1)
			}
		})
	}
	wg.Wait()
	if n := turns.Load(); n != 1 {
		t.Errorf("%d callers got the turn, want 1", n)
	}
}
