package values

import (
	"errors"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/humantime"
)

func TestThreshold(t *testing.T) {
	for text, want := range map[string]Threshold{
		"30d": {Before: 30 * humantime.Day}, "36h": {Before: 36 * time.Hour}, "25%": {Share: 0.25}, "0.5%": {Share: 0.005}, "100%": {Share: 1},
	} {
		var got Threshold
		if err := got.Set(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "%", "0%", "101%", "-1%", "+1%", "1e1%", "inf%", "nan%", "0x1p1%", "1%%", " 1%", "1 %", "30", "-1d", "0d", ".%"} {
		got := Threshold{Before: humantime.Day}
		if err := got.Set(bad); !errors.Is(err, errThreshold) || got.Before != humantime.Day {
			t.Errorf("%q is taken as %+v, %v", bad, got, err)
		}
	}
	if text := (Threshold{}).String(); text != "" {
		t.Error(text)
	}
}

// FuzzThreshold checks that a text that is taken is a time or a share of at most the whole life, never
// both, and that the text of String is taken again.
func FuzzThreshold(f *testing.F) {
	for _, seed := range []string{"30d", "33%", "0.1%", "1e9%", "%"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var got, again Threshold
		if got.Set(text) != nil {
			return
		}
		if got.Share < 0 || got.Share > 1 || got.Before < 0 || (got.Share > 0) == (got.Before > 0) {
			t.Fatalf("%q = %+v", text, got)
		}
		if err := again.Set(got.String()); err != nil {
			t.Fatalf("%q = %+v, written %q: %v", text, got, got, err)
		}
	})
}
