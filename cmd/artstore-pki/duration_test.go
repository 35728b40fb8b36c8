package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	for _, c := range []struct {
		text string
		want time.Duration
		back string
	}{
		{"36h", 36 * time.Hour, "1d12h"},
		{"14d", 14 * day, "14d"},
		{"2y", 730 * day, "730d"},
		{"1w", 7 * day, "7d"},
		{"1y1w1d1h", 373*day + time.Hour, "373d1h"},
		{"90m", 90 * time.Minute, "1h30m"},
		{"10s", 10 * time.Second, "10s"},
		{"1.5h", 90 * time.Minute, "1h30m"},
		{"1d0.5s", day + time.Second/2, "1d500ms"},
		{"1d20m", day + 20*time.Minute, "1d20m"},
		{"292y", 292 * year, "106580d"},
	} {
		var s span
		if err := s.Set(c.text); err != nil || s.Duration != c.want || s.String() != c.back {
			t.Errorf("%q = %s (%s), %v; want %s (%s)", c.text, s.Duration, s, err, c.want, c.back)
		}
	}
	s := span{time.Hour}
	for _, bad := range []string{
		"", "0", "0d", "0s", "d", "30", "30x", "-1d", "-1h", "1d-1h", "+1d", "1d+1h", "1.5d", " 1d", "1d ", "1D", "1 d", "30d\n",
		"293y", "292y300d", "99999999999999999999d", "99999999999999999999y1d", strings.Repeat("9", 1000) + "d", "1h1d", "１d",
	} {
		if err := s.Set(bad); err == nil || !errors.Is(err, errSpan) || s.Duration != time.Hour {
			t.Errorf("%.40q is taken as %s, %v", bad, s.Duration, err)
		}
	}
}

// FuzzSpan: whatever is taken is more than nothing, and what String makes of it
// is taken as the same.
func FuzzSpan(f *testing.F) {
	for _, seed := range []string{"36h", "14d", "2y", "1w2d12h", "1d0.5s", "292y", "-1d", "9223372036854775807ns", "9999999999999999999d", "1d1d1d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parseSpan(text)
		if err != nil {
			return
		}
		if d <= 0 {
			t.Fatalf("%q = %d", text, d)
		}
		if again, err := parseSpan(span{d}.String()); err != nil || again != d {
			t.Fatalf("%q = %s, written %q, which is %s, %v", text, d, span{d}, again, err)
		}
	})
}
