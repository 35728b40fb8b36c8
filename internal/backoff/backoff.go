// Package backoff computes how long to wait after several failures. It does not wait itself,
// and r is a random number in [0, 1) that the caller draws, so that each result can be
// tested.
//
// Full spreads a fleet best, because each moment of a step is equally likely. Half waits for
// half of a step at least, for steps after which no client may come at once. Between has a
// lower bound.
package backoff

import "time"

// Step returns first doubled n times, and at most most. A negative n counts as 0.
func Step(first, most time.Duration, n int) time.Duration {
	step := min(first, most)
	for range n {
		if step > most/2 {
			return most
		}
		step *= 2
	}
	return step
}

// Full returns a duration in [0, d).
func Full(d time.Duration, r float64) time.Duration { return Between(0, d, r) }

// Half returns a duration in [d/2, d).
func Half(d time.Duration, r float64) time.Duration { return Between(d/2, d, r) }

// Between returns a duration in [low, high), or low if high is less.
func Between(low, high time.Duration, r float64) time.Duration {
	return low + time.Duration(r*float64(max(high-low, 0)))
}
