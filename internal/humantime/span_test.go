package humantime_test

import (
	"math"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/humantime"
)

func TestShort(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": 0, "59s": time.Minute - 1, "1m": time.Minute, "1m1s": 61 * time.Second, "59m59s": time.Hour - 1,
		"1h": time.Hour + time.Second, "23h59m": humantime.Day - 1, "1d": humantime.Day, "1d23h": 48*time.Hour - 1,
		"9d23h": 10*humantime.Day - 1, "10d": 10 * humantime.Day, "365d": humantime.Year + 23*time.Hour,
	} {
		for _, signed := range []time.Duration{d, -d} {
			if got := humantime.Short(humantime.InSeconds(signed)); got != want {
				t.Errorf("%s is %s, want %s", signed, got, want)
			}
		}
	}
}

// TestBetween has moments that are further apart than a Duration is long.
func TestBetween(t *testing.T) {
	at := func(text string) time.Time {
		got, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for _, c := range []struct {
		from, to string
		want     humantime.Seconds
		short    string
	}{
		{"2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", 86400, "1d"},
		{"2026-01-01T00:00:00.9Z", "2026-01-01T00:00:02.1Z", 1, "1s"},
		{"2026-01-01T00:00:00.9Z", "2026-01-01T00:00:01.1Z", 0, "0s"},
		{"2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z", 251635075199, "2912442d"},
		{"0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", 315537897599, "3652058d"},
	} {
		from, to := at(c.from), at(c.to)
		if got := humantime.Between(from, to); got != c.want || humantime.Short(got) != c.short {
			t.Errorf("from %s to %s: %d, %s", c.from, c.to, got, humantime.Short(got))
		}
		if got := humantime.Between(to, from); got != -c.want {
			t.Errorf("from %s to %s: %d", c.to, c.from, got)
		}
	}
	if got := humantime.InSeconds(math.MaxInt64); got != math.MaxInt64/1_000_000_000 {
		t.Errorf("the longest duration has %d seconds", got)
	}
}

func TestStamp(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 999, time.Local)
	if got := humantime.Stamp(at.UTC()); got != "2026-01-02 03:04:05" {
		t.Error(got)
	}
}
