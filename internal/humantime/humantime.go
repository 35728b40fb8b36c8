// Package humantime reads and writes lengths of time as people write them in
// flags and files: what [time.ParseDuration] takes, and weeks, days and years in
// front of it, as in 90d, 2w, 1y or 1w2d12h. Flags, pki.yaml and settings share
// it, so that a text which one of them takes is taken by all. It also says how long
// something has been or will be, rounded down and in few units, for tables and findings.
package humantime

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// The long units. A year is what certificate tools mean by one: leap days do not
// matter to a lifetime.
const (
	Day  = 24 * time.Hour
	Week = 7 * Day
	Year = 365 * Day
)

// ErrSyntax reports a text that is not a length of time.
var ErrSyntax = errors.New("want a length of time like 36h, 14d or 2y")

// Parse reads a length of time. Zero is one (0s, 0d, or 0 alone); signs, spaces
// and numbers without a unit are errors, and so is a length that a
// [time.Duration] cannot hold. Errors wrap [ErrSyntax].
func Parse(text string) (time.Duration, error) {
	total, rest := time.Duration(0), text
	for {
		d, after, ok := longUnit(rest)
		if !ok {
			break
		}
		if d < 0 || d > math.MaxInt64-total {
			return 0, tooLong(text)
		}
		total, rest = total+d, after
	}
	if rest == "" && text != "" {
		return total, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || rest[0] == '-' || rest[0] == '+' {
		return 0, fmt.Errorf("%.80q: %w", text, ErrSyntax)
	}
	if d > math.MaxInt64-total {
		return 0, tooLong(text)
	}
	return total + d, nil
}

func tooLong(text string) error { return fmt.Errorf("%.80q is too long: %w", text, ErrSyntax) }

// longUnit takes one whole number of days, weeks or years off the front. A number
// that no duration can hold comes back as -1.
func longUnit(text string) (d time.Duration, rest string, ok bool) {
	digits := len(text) - len(strings.TrimLeft(text, "0123456789"))
	if digits == 0 || digits == len(text) {
		return 0, text, false
	}
	unit, known := map[byte]time.Duration{'d': Day, 'w': Week, 'y': Year}[text[digits]]
	if !known {
		return 0, text, false
	}
	n, err := strconv.ParseInt(text[:digits], 10, 64)
	if err != nil || n > int64(math.MaxInt64/unit) {
		return -1, text[digits+1:], true
	}
	return time.Duration(n) * unit, text[digits+1:], true
}

// Format returns the shortest text that [Parse] reads back as d: 14d, 1d12h, 36s.
func Format(d time.Duration) string {
	days, rest := d/Day, d%Day
	if days <= 0 {
		return short(d)
	}
	text := fmt.Sprintf("%dd", days)
	if rest > 0 {
		text += short(rest)
	}
	return text
}

// short drops the zeros that Duration.String ends in: 36h0m0s is 36h.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
