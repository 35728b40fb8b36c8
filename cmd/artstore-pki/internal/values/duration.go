// Package values has the kinds of values that flags take and that the library of
// the command line does not know: lengths of time with days and years, and
// thresholds before the end of a life. Each is the value of a [cli.GenericFlag].
//
// Invariants:
//
//   - The text that a value prints can be read back (FuzzThreshold, TestSpan).
//   - A text that is refused leaves the value as it was (TestThreshold, TestSpan).
package values

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/internal/humantime"
)

// Duration is the value of a flag for a length of time, as [humantime.Parse]
// reads it: with days, weeks and years, which the library's own flag does not know.
// It is the value of a [cli.GenericFlag]. The zero value has no default and takes no 0.
type Duration struct {
	time.Duration
	zero bool // Set takes 0
}

// DurationFlag returns a flag for a length of time that is more than 0; [DurationOf] reads it.
func DurationFlag(name string, value time.Duration, usage string) *cli.GenericFlag {
	return &cli.GenericFlag{Name: name, Value: &Duration{Duration: value}, Usage: usage}
}

// OrZero returns a value that is d by default and that can be set to 0,
// for flags where 0 turns something off.
func OrZero(d time.Duration) *Duration { return &Duration{d, true} }

// DurationOf returns the value of a flag. It is 0 for a flag that was not given
// and has no default, or that the command does not have.
func DurationOf(c *cli.Context, name string) time.Duration {
	if s, ok := c.Generic(name).(*Duration); ok {
		return s.Duration
	}
	return 0
}

// Set parses a length of time. The error names what was given, and matches
// [humantime.ErrSyntax].
func (s *Duration) Set(text string) error {
	d, err := humantime.Parse(text)
	if err != nil {
		return err
	}
	if d == 0 && !s.zero {
		return fmt.Errorf("%.80q is no time at all: %w", text, humantime.ErrSyntax)
	}
	s.Duration = d
	return nil
}

// String is the shortest form that Set reads back.
func (s Duration) String() string { return humantime.Format(s.Duration) }
