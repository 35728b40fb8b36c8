package ordered_test

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/audit/internal/ordered"
)

// Results come in the order in which the pieces were given, whichever is done first, and
// no more pieces run or wait with a result than their room has places.
func TestPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pieces, places = 50, 4
		var got []int
		var emitted atomic.Int64
		pool := ordered.New(func(n int) {
			got = append(got, n)
			emitted.Add(1)
		})
		room := make(chan struct{}, places)
		for n := range pieces {
			pool.Do(room, func() int {
				if ahead := int64(n) - emitted.Load(); ahead >= 2*places {
					t.Errorf("piece %d runs while only %d are done", n, emitted.Load())
				}
				time.Sleep(time.Duration(pieces-n) * time.Millisecond) // the last is done first
				return n
			})
		}
		pool.Wait()
		if !slices.IsSorted(got) || len(got) != pieces {
			t.Errorf("%d results: %v", len(got), got)
		}
	})
}

// A slow piece does not stop those of another room, but their results wait for it.
func TestRoomsAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var order []string
		pool := ordered.New(func(name string) { order = append(order, name) })
		servers, files := make(chan struct{}, 1), make(chan struct{}, 1)
		pool.Do(servers, func() string { time.Sleep(time.Hour); return "server" })
		done := make(chan time.Duration, 1)
		pool.Do(files, func() string { done <- time.Since(start); return "file" })
		if took := <-done; took != 0 {
			t.Errorf("the file waited for %v", took)
		}
		pool.Wait()
		if !slices.Equal(order, []string{"server", "file"}) || time.Since(start) != time.Hour {
			t.Errorf("%v after %v", order, time.Since(start))
		}
	})
}
