// Package backoff computes how long to wait after failures in a row. It waits for
// nothing itself and draws no random numbers, so that each of its results can be
// tested: r is a random number in [0, 1) that the caller draws.
//
// Which jitter is right depends on what waits. Full spreads a fleet best, since any
// moment of a step is as likely as another. Half keeps at least half of a step: for
// steps that are long enough that no client may come at once. Between keeps a floor.
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
