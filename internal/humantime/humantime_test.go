package humantime_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/humantime"
)

func TestParse(t *testing.T) {
	const day, year = humantime.Day, humantime.Year
	for _, c := range []struct {
		text string
		want time.Duration
		back string
	}{
		{"36h", 36 * time.Hour, "1d12h"},
		{"14d", 14 * day, "14d"},
		{"2y", 730 * day, "730d"},
		{"1w", humantime.Week, "7d"},
		{"1y1w1d1h", 373*day + time.Hour, "373d1h"},
		{"90m", 90 * time.Minute, "1h30m"},
		{"10s", 10 * time.Second, "10s"},
		{"1.5h", 90 * time.Minute, "1h30m"},
		{"1d0.5s", day + time.Second/2, "1d500ms"},
		{"1d20m", day + 20*time.Minute, "1d20m"},
		{"292y", 292 * year, "106580d"},
		{"0", 0, "0s"},
		{"0s", 0, "0s"},
		{"0d", 0, "0s"},
	} {
		got, err := humantime.Parse(c.text)
		if back := humantime.Format(got); err != nil || got != c.want || back != c.back {
			t.Errorf("%q = %s (%s), %v; want %s (%s)", c.text, got, back, err, c.want, c.back)
		}
	}
	for _, bad := range []string{
		"", "d", "30", "30x", "-1d", "-1h", "1d-1h", "+1d", "1d+1h", "1.5d", " 1d", "1d ", "1D", "1 d", "30d\n",
		"293y", "292y300d", "99999999999999999999d", "99999999999999999999y1d", strings.Repeat("9", 1000) + "d", "1h1d", "１d",
	} {
		if got, err := humantime.Parse(bad); !errors.Is(err, humantime.ErrSyntax) {
			t.Errorf("%.40q is taken as %s, %v", bad, got, err)
		}
	}
}

// FuzzParse: what is taken is not negative, and what Format writes of it is
// taken as the same length.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"36h", "14d", "2y", "1w2d12h", "1d0.5s", "292y", "0", "-1d", "9223372036854775807ns", "9999999999999999999d", "1d1d1d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := humantime.Parse(text)
		if err != nil {
			return
		}
		if d < 0 {
			t.Fatalf("%q = %d", text, d)
		}
		if again, err := humantime.Parse(humantime.Format(d)); err != nil || again != d {
			t.Fatalf("%q = %s, written %q, which is %s, %v", text, d, humantime.Format(d), again, err)
		}
	})
}
