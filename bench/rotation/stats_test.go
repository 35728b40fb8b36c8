package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func seeded() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		values []float64
		q      float64
		want   float64
	}{
		{nil, 0.5, 0},
		{[]float64{7}, 0.5, 7},
		{[]float64{7}, 1, 7},
		{[]float64{1, 2}, 0.5, 1.5},
		{[]float64{1, 2, 3, 4, 5}, 0.25, 2},
		{[]float64{1, 2, 3, 4, 5}, 0.75, 4},
		{[]float64{1, 2, 3, 4}, 0.5, 2.5},
		{[]float64{1, 2, 3}, 0, 1},
		{[]float64{1, 2, 3}, 1, 3},
	} {
		if got := quantile(c.values, c.q); !near(got, c.want) {
			t.Errorf("quantile(%v, %g) = %g, want %g", c.values, c.q, got, c.want)
		}
	}
}

// The median of the ratios is not the ratio of the medians: pairing must come first.
func TestRatiosArePaired(t *testing.T) {
	by, of := []float64{1, 10, 100}, []float64{2, 20, 110}
	got := ratios(of, by)
	if want := []float64{2, 2, 1.1}; !slices.EqualFunc(got, want, near) {
		t.Fatalf("ratios = %v, want %v", got, want)
	}
	if m := median(got); !near(m, 2) {
		t.Errorf("median %g", m)
	}
}

func TestSummariseFindsAKnownRatioUnderNoise(t *testing.T) {
	rng := seeded()
	sample := func(ratio float64) []float64 {
		var of, by []float64
		for range 400 {
			shared := 1 + 3*rng.Float64() // the machine's load of that round, met by both
			of = append(of, ratio*shared*(1+0.05*rng.NormFloat64()))
			by = append(by, shared*(1+0.05*rng.NormFloat64()))
		}
		return ratios(of, by)
	}
	same, slower := summarise(sample(1), rng), summarise(sample(1.1), rng)
	if same.low > 1 || same.high < 1 || same.high-same.low > 0.03 {
		t.Errorf("A/A: %+v", same)
	}
	if slower.low > 1.1 || slower.high < 1.1 {
		t.Errorf("1.1: %+v", slower)
	}
	if same.overlaps(slower) || !same.overlaps(same) || slower.overlaps(same) {
		t.Errorf("overlap of %+v and %+v", same, slower)
	}
	if same.q1 >= same.median || same.q3 <= same.median {
		t.Errorf("quartiles: %+v", same)
	}
}

func TestOutliersDoNotMoveTheResult(t *testing.T) {
	values := make([]float64, 100)
	for i := range values {
		values[i] = 1
	}
	for i := range 10 {
		values[i] = 50
	}
	if s := summarise(values, seeded()); s.median != 1 || s.low != 1 || s.high != 1 {
		t.Errorf("%+v", s)
	}
}

func TestSummariseOfNothing(t *testing.T) {
	if s := summarise(nil, seeded()); s != (summary{}) {
		t.Errorf("%+v", s)
	}
}

// The interval must hold the truth about as often as it says.
func TestIntervalCovers(t *testing.T) {
	rng, hit := seeded(), 0
	const trials = 100
	for range trials {
		values := make([]float64, 60)
		for i := range values {
			values[i] = 1 + 0.1*rng.NormFloat64()
		}
		if s := summarise(values, rng); s.low <= 1 && 1 <= s.high {
			hit++
		}
	}
	if hit < 88 {
		t.Errorf("%d of %d intervals hold the true median", hit, trials)
	}
}
