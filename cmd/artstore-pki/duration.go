package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/internal/humantime"
)

// longDuration is the value of a flag for a length of time, as [humantime.Parse]
// reads it: with days, weeks and years, which the library's own flag does not know.
// It is the value of a [cli.GenericFlag]. The zero value has no default and takes no 0.
type longDuration struct {
	time.Duration
	zero bool // 0 is a value, too
}

// durationFlag returns a flag for a length of time that is more than nothing;
// [durationOf] reads it.
func durationFlag(name string, value time.Duration, usage string) *cli.GenericFlag {
	return &cli.GenericFlag{Name: name, Value: &longDuration{Duration: value}, Usage: usage}
}

// durationOrZero returns a value that is d by default and that can be set to 0,
// for flags where 0 turns something off.
func durationOrZero(d time.Duration) *longDuration { return &longDuration{d, true} }

// durationOf returns the value of a flag. It is 0 for a flag that was not given
// and has no default, or that the command does not have.
func durationOf(c *cli.Context, name string) time.Duration {
	if s, ok := c.Generic(name).(*longDuration); ok {
		return s.Duration
	}
	return 0
}

// Set parses a length of time. The error names what was given, and matches
// [humantime.ErrSyntax].
func (s *longDuration) Set(text string) error {
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
func (s longDuration) String() string { return humantime.Format(s.Duration) }
