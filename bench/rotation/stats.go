package main

import (
	"math/rand/v2"
	"slices"
)

// resamples of the bootstrap: the ends of a 95 % interval then rest on 50 values each.
const resamples = 2000

// summary describes paired ratios: the median is the result, the quartiles show
// the noise of one round, the interval says how far the median itself can be trusted.
type summary struct {
	median, q1, q3, low, high float64
}

// overlaps reports whether two medians cannot be told apart at 95 %.
func (s summary) overlaps(o summary) bool { return s.low <= o.high && o.low <= s.high }

// ratios divides round by round: both values of a round met the same neighbours on the machine.
func ratios(of, by []float64) []float64 {
	out := make([]float64, len(of))
	for i := range of {
		out[i] = of[i] / by[i]
	}
	return out
}

// quantile interpolates between the two nearest of the sorted values, q in [0, 1].
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	at := q * float64(len(sorted)-1)
	below := int(at)
	if below == len(sorted)-1 {
		return sorted[below]
	}
	return sorted[below] + (at-float64(below))*(sorted[below+1]-sorted[below])
}

func median(values []float64) float64 {
	return quantile(slices.Sorted(slices.Values(values)), 0.5)
}

// summarise adds the percentile bootstrap of the median: rounds are drawn with
// replacement, so a few rounds that something disturbed widen the interval and
// do not move the result.
func summarise(values []float64, rng *rand.Rand) summary {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return summary{}
	}
	medians, draw := make([]float64, resamples), make([]float64, len(values))
	for i := range medians {
		for j := range draw {
			draw[j] = values[rng.IntN(len(values))]
		}
		medians[i] = median(draw)
	}
	slices.Sort(medians)
	return summary{
		median: quantile(sorted, 0.5), q1: quantile(sorted, 0.25), q3: quantile(sorted, 0.75),
		low: quantile(medians, 0.025), high: quantile(medians, 0.975),
	}
}
