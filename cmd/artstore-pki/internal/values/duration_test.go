package values

import (
	"errors"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/humantime"
)

func TestSpan(t *testing.T) {
	s := Duration{Duration: time.Hour}
	for _, bad := range []string{"", "0", "0d", "0s", "30", "-1d"} {
		if err := s.Set(bad); !errors.Is(err, humantime.ErrSyntax) || s.Duration != time.Hour {
			t.Errorf("%q is taken as %s, %v", bad, s.Duration, err)
		}
	}
	if err := s.Set("1w12h"); err != nil || s.Duration != 180*time.Hour || s.String() != "7d12h" {
		t.Errorf("1w12h is %s, %v", s, err)
	}
	pause := Duration{Duration: time.Hour, zero: true}
	if err := pause.Set("0"); err != nil || pause.Duration != 0 || pause.String() != "0s" {
		t.Errorf("0 is %s, %v", pause, err)
	}
}
