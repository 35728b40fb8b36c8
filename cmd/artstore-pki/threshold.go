package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/internal/humantime"
)

// threshold is the value of a flag for how near its end something is: a length
// of time as [humantime.Parse] reads it, or a share of its life such as 33%.
type threshold struct {
	before time.Duration
	share  float64
}

func thresholdFlag(name, usage string) cli.Flag {
	return &cli.GenericFlag{Name: name, Value: &threshold{}, Usage: usage}
}

// thresholdOf is zero for a flag that was not given, or that a command does not have.
func thresholdOf(c *cli.Context, name string) threshold {
	if t, ok := c.Generic(name).(*threshold); ok {
		return *t
	}
	return threshold{}
}

var errThreshold = errors.New("want a length of time like 36h or 14d, or a share of the life like 33%")

// Set parses either form.
func (t *threshold) Set(text string) error {
	percent, isShare := strings.CutSuffix(text, "%")
	if !isShare {
		d, err := humantime.Parse(text)
		if err != nil || d == 0 {
			return fmt.Errorf("%.80q: %w", text, errThreshold)
		}
		*t = threshold{before: d}
		return nil
	}
	share, err := strconv.ParseFloat(percent, 64)
	// ParseFloat takes more than people write: signs, exponents, "inf".
	if err != nil || strings.Trim(percent, "0123456789.") != "" || share <= 0 || share > 100 {
		return fmt.Errorf("%.80q: %w", text, errThreshold)
	}
	*t = threshold{share: share / 100}
	return nil
}

// String is what Set reads back, or "" for the default.
func (t threshold) String() string {
	switch {
	case t.share > 0:
		return strconv.FormatFloat(t.share*100, 'f', -1, 64) + "%"
	case t.before > 0:
		return humantime.Format(t.before)
	}
	return ""
}
