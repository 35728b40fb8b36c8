package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/internal/humantime"
)

const day = humantime.Day

// longDuration is the value of a flag for a length of time, as [humantime.Parse] reads it.
type longDuration struct {
	time.Duration
	zero bool // 0 is a value, too
}

// durationFlag is a flag for a length of time that is more than nothing; spanOf reads it.
func durationFlag(name string, value time.Duration, usage string) *cli.GenericFlag {
	return &cli.GenericFlag{Name: name, Value: &longDuration{Duration: value}, Usage: usage}
}

func durationOf(c *cli.Context, name string) time.Duration {
	if s, ok := c.Generic(name).(*longDuration); ok {
		return s.Duration
	}
	return 0
}

// Set parses a length of time.
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
