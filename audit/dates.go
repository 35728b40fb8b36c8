package audit

import (
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/internal/lifetime"
)

// threshold is how near its end a certificate is reported: within a time of it,
// or with a share of its life left, whichever comes later. A field that is zero
// does not count. A fixed time alone is a permanent alarm for short lives, a
// share alone is years early for a root.
type threshold struct {
	before time.Duration
	share  float64
}

var (
	defaultWarn = threshold{30 * 24 * time.Hour, 1. / 3}
	defaultCrit = threshold{7 * 24 * time.Hour, 1. / 6}
)

// of is the time before the end of such a life.
func (t threshold) of(life time.Duration) time.Duration {
	share := time.Duration(t.share * float64(life))
	switch {
	case t.share == 0:
		return t.before
	case t.before == 0:
		return share
	}
	return min(t.before, share)
}

func expired(s *Subject, at criteria) (Severity, string) {
	if at.now.Before(s.Cert.notAfter) {
		return fine, ""
	}
	return Crit, "expired " + span(at.now.Sub(s.Cert.notAfter)) + " ago"
}

func notYetValid(s *Subject, at criteria) (Severity, string) {
	if !at.now.Before(s.Cert.notBefore) {
		return fine, ""
	}
	return Crit, "not valid for another " + span(s.Cert.notBefore.Sub(at.now))
}

func overdue(s *Subject, at criteria) (Severity, string) {
	if !s.renews() || !at.now.Before(s.Cert.notAfter) {
		return fine, ""
	}
	why, late := lifetime.Overdue(s.Cert.notBefore, s.Cert.notAfter, at.now)
	if !late {
		return fine, ""
	}
	return Crit, "renewal overdue: " + why
}

func expiring(s *Subject, at criteria) (Severity, string) {
	left := s.Cert.notAfter.Sub(at.now)
	if s.renews() || left <= 0 {
		return fine, ""
	}
	text := "expires in " + span(left)
	switch life := life(s.Cert); {
	case left <= at.crit.of(life):
		return Crit, text
	case left <= at.warn.of(life):
		return Warn, text
	}
	return fine, ""
}

// span is a duration in two units at most, as people say it.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch d = d.Abs(); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return units(int(d.Minutes()), "m", int(d.Seconds())%60, "s")
	case d < day:
		return units(int(d.Hours()), "h", int(d.Minutes())%60, "m")
	case d < 10*day:
		return units(int(d/day), "d", int(d.Hours())%24, "h")
	}
	return fmt.Sprintf("%dd", int(d/day))
}

func units(large int, name string, small int, smallName string) string {
	if small == 0 {
		return fmt.Sprintf("%d%s", large, name)
	}
	return fmt.Sprintf("%d%s%d%s", large, name, small, smallName)
}
