package humantime

import (
	"fmt"
	"time"
)

// Seconds is a length of time between two moments, which may be far apart: a
// [time.Duration] ends at 292 years, where [time.Time.Sub] saturates, and the end of a
// certificate that has none is the year 9999 (RFC 5280 §4.1.2.5).
type Seconds int64

// Units of [Short].
const (
	minute Seconds = 60
	hour           = 60 * minute
	day            = 24 * hour
)

// Between returns the time from one moment to another, rounded towards zero; it is
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

// InSeconds returns a duration in whole seconds, rounded towards zero.
func InSeconds(d time.Duration) Seconds { return Seconds(d / time.Second) }

// Short returns a length of time as people say it, rounded towards zero: in two units at most,
// and in days alone from ten days on. It has no sign.
func Short(d Seconds) string {
	if d < 0 {
		d = -d
	}
	switch {
	case d < minute:
		return fmt.Sprintf("%ds", d)
	case d < hour:
		return units(d/minute, "m", d%minute, "s")
	case d < day:
		return units(d/hour, "h", d%hour/minute, "m")
	case d < 10*day:
		return units(d/day, "d", d%day/hour, "h")
	}
	return fmt.Sprintf("%dd", d/day)
}

func units(large Seconds, name string, small Seconds, smallName string) string {
	if small == 0 {
		return fmt.Sprintf("%d%s", large, name)
	}
	return fmt.Sprintf("%d%s%d%s", large, name, small, smallName)
}

// Stamp returns a moment for people, in the time zone of this machine.
func Stamp(t time.Time) string { return t.Local().Format(time.DateTime) }
