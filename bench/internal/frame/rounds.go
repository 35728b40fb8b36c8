package frame

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Order is the source of the order in which lanes take turns; the same seed gives the same order.
func Order(seed uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // G404: an order, not a secret
}

// Rounds calls turn for each of the lanes once in each round, shuffled anew, so
// that no lane always runs behind the same other one. It returns what the turns
// returned as [lane][round], up to the first error.
func Rounds[T any](order *rand.Rand, rounds, lanes int, turn func(lane int) (T, error)) ([][]T, error) {
	all := make([][]T, lanes)
	for range rounds {
		for _, i := range order.Perm(lanes) {
			t, err := turn(i)
			if err != nil {
				return nil, err
			}
			all[i] = append(all[i], t)
		}
	}
	return all, nil
}

// Paired is the median of the ratios of a figure, of ÷ by, round by round: both
// met the same neighbours on the machine. They have as many rounds, at least one.
func Paired[T any](of, by []T, figure func(T) float64) float64 {
	r := make([]float64, len(of))
	for i := range of {
		r[i] = figure(of[i]) / figure(by[i])
	}
	slices.Sort(r)
	return (r[(len(r)-1)/2] + r[len(r)/2]) / 2
}

// Together does one thing n times, so many at a time as there are workers, and
// returns how long that took. A worker stops at its first error; one of them is returned.
func Together(n, workers int, do func() error) (time.Duration, error) {
	var left atomic.Int64
	left.Store(int64(n))
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	start := time.Now()
	for range workers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := do(); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	if err := failed.Load(); err != nil {
		return took, *err
	}
	return took, nil
}
