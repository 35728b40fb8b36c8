package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

const (
	day  = 24 * time.Hour
	week = 7 * day
	year = 365 * day // what certificate tools mean by a year; leap days do not matter to a lifetime
)

// span is the value of a flag for a length of time: what [time.ParseDuration]
// takes, and days, weeks and years before it, as in 30d, 2y or 1w2d12h.
type span struct{ time.Duration }

// spanFlag is a flag for a length of time; spanOf reads it.
func spanFlag(name string, value time.Duration, usage string) cli.Flag {
	return &cli.GenericFlag{Name: name, Value: &span{value}, Usage: usage}
}

func spanOf(c *cli.Context, name string) time.Duration {
	if s, ok := c.Generic(name).(*span); ok {
		return s.Duration
	}
	return 0
}

// Set parses a length of time that is more than nothing.
func (s *span) Set(text string) error {
	d, err := parseSpan(text)
	if err != nil {
		return err
	}
	s.Duration = d
	return nil
}

var errSpan = errors.New("want a length of time like 36h, 14d or 2y")

func parseSpan(text string) (time.Duration, error) {
	total, rest := time.Duration(0), text
	for {
		d, after, ok := longUnit(rest)
		if !ok {
			break
		}
		if d < 0 || d > math.MaxInt64-total {
			return 0, fmt.Errorf("%.80q is too long: %w", text, errSpan)
		}
		total, rest = total+d, after
	}
	if rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil || rest[0] == '-' || rest[0] == '+' {
			return 0, fmt.Errorf("%.80q: %w", text, errSpan)
		}
		if d > math.MaxInt64-total {
			return 0, fmt.Errorf("%.80q is too long: %w", text, errSpan)
		}
		total += d
	}
	if total <= 0 {
		return 0, fmt.Errorf("%.80q is no time at all: %w", text, errSpan)
	}
	return total, nil
}

// longUnit takes one whole number of days, weeks or years off the front; one that
// no duration can hold comes back as less than nothing.
func longUnit(text string) (d time.Duration, rest string, ok bool) {
	digits := len(text) - len(strings.TrimLeft(text, "0123456789"))
	if digits == 0 || digits == len(text) {
		return 0, text, false
	}
	unit, known := map[byte]time.Duration{'d': day, 'w': week, 'y': year}[text[digits]]
	if !known {
		return 0, text, false
	}
	n, err := strconv.ParseInt(text[:digits], 10, 64)
	if err != nil || n > int64(math.MaxInt64/unit) {
		return -1, text[digits+1:], true
	}
	return time.Duration(n) * unit, text[digits+1:], true
}

// String is the shortest form that Set reads back.
func (s span) String() string {
	days, rest := s.Duration/day, s.Duration%day
	if days <= 0 {
		return shortDuration(s.Duration)
	}
	text := fmt.Sprintf("%dd", days)
	if rest > 0 {
		text += shortDuration(rest)
	}
	return text
}

// shortDuration drops the zeros that Duration.String ends in: 36h0m0s is 36h.
func shortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
