// Package wording says numbers and times as people do.
package wording

import (
	"fmt"
	"time"
)

// Seconds is a length of time. [time.Time.Sub] saturates at 292 years, and the end
// of what has none is the year 9999 (RFC 5280 §4.1.2.5).
type Seconds int64

// Units of a length of time.
const (
	Minute Seconds = 60
	Hour           = 60 * Minute
	Day            = 24 * Hour
)

// Between is the time from one moment to another, rounded towards zero; it is
// negative if to comes first.
func Between(from, to time.Time) Seconds {
	whole, rest := to.Unix()-from.Unix(), to.Nanosecond()-from.Nanosecond()
	switch {
	case whole > 0 && rest < 0:
		whole--
	case whole < 0 && rest > 0:
		whole++
	}
	return Seconds(whole)
}

// InSeconds is a duration in whole seconds, rounded towards zero.
func InSeconds(d time.Duration) Seconds { return Seconds(d / time.Second) }

// Span is a length of time in two units at most, as people say it.
func Span(d Seconds) string {
	if d < 0 {
		d = -d
	}
	switch {
	case d < Minute:
		return fmt.Sprintf("%ds", d)
	case d < Hour:
		return units(d/Minute, "m", d%Minute, "s")
	case d < Day:
		return units(d/Hour, "h", d%Hour/Minute, "m")
	case d < 10*Day:
		return units(d/Day, "d", d%Day/Hour, "h")
	}
	return fmt.Sprintf("%dd", d/Day)
}

func units(large Seconds, name string, small Seconds, smallName string) string {
	if small == 0 {
		return fmt.Sprintf("%d%s", large, name)
	}
	return fmt.Sprintf("%d%s%d%s", large, name, small, smallName)
}

// Plural counts things.
func Plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Stamp is a moment for people, in the zone of this machine.
func Stamp(t time.Time) string { return t.Local().Format(time.DateTime) }
