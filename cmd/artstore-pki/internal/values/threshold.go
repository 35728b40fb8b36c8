package values

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/internal/humantime"
)

// Threshold is the value of a flag for how near its end something is: a length
// of time as [humantime.Parse] reads it, or a share of its life such as 33%.
// One of the two fields is 0, or both are: no threshold.
type Threshold struct {
	Before time.Duration
	Share  float64 // of the life, above 0 and up to 1
}

// ThresholdFlag returns a flag for a threshold, with none by default; [ThresholdOf] reads it.
func ThresholdFlag(name, usage string) cli.Flag {
	return &cli.GenericFlag{Name: name, Value: &Threshold{}, Usage: usage}
}

// ThresholdOf is zero for a flag that was not given, or that a command does not have.
func ThresholdOf(c *cli.Context, name string) Threshold {
	if t, ok := c.Generic(name).(*Threshold); ok {
		return *t
	}
	return Threshold{}
}

var errThreshold = errors.New("want a length of time like 36h or 14d, or a share of the life like 33%")

// Set parses either form.
func (t *Threshold) Set(text string) error {
	percent, isShare := strings.CutSuffix(text, "%")
	if !isShare {
		d, err := humantime.Parse(text)
		if err != nil || d == 0 {
			return fmt.Errorf("%.80q: %w", text, errThreshold)
		}
		*t = Threshold{Before: d}
		return nil
	}
	share, err := strconv.ParseFloat(percent, 64)
	// ParseFloat takes more than people write: signs, exponents, "inf".
	if err != nil || strings.Trim(percent, "0123456789.") != "" || share <= 0 || share > 100 {
		return fmt.Errorf("%.80q: %w", text, errThreshold)
	}
	*t = Threshold{Share: share / 100}
	return nil
}

// String is what Set reads back, or "" for the default.
func (t Threshold) String() string {
	switch {
	case t.Share > 0:
		return strconv.FormatFloat(t.Share*100, 'f', -1, 64) + "%"
	case t.Before > 0:
		return humantime.Format(t.Before)
	}
	return ""
}
