package audit

import (
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/printable"
)

// Severity orders findings.
type Severity int

// Severities, mildest first.
const (
	fine Severity = iota
	Warn
	Crit
)

func (s Severity) String() string {
	return [...]string{"ok", "warn", "crit"}[s]
}

// MarshalText writes the name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is what one check has to say about a subject.
type Finding struct {
	Check    string   `json:"check"` // its id, stable
	Severity Severity `json:"severity"`
	Text     string   `json:"text"`
	Remedy   string   `json:"remedy"`
	Cites    string   `json:"cites"`
}

// check is a row of the table. judge returns "" for a subject that is fine or
// none of its business.
type check struct {
	id     string
	word   string // state of a row whose worst finding this is; empty: the severity's
	cites  string
	remedy string
	judge  func(s *Subject, now time.Time) (Severity, string)
}

// ofDates are the checks that need nothing but dates, so that a certificate
// that was read in part only is judged by them.
var ofDates = []string{"expired", "not-yet-valid", "renewal-overdue", "expiring"}

// Thresholds for certificates that people renew: the smaller of a fixed time
// and a share of the life. A fixed time alone is a permanent alarm for short
// lives, a share alone is years early for a root.
const (
	warnBefore, warnShare = 30 * 24 * time.Hour, 3
	critBefore, critShare = 7 * 24 * time.Hour, 6
)

// looseBits are the permissions that let others read a key.
const looseBits fs.FileMode = 0o077

var checks = []check{
	{"expired", "EXPIRED", "RFC 5280 section 4.1.2.5", "replace it: every peer refuses it", expired},
	{"not-yet-valid", "NOT-YET", "RFC 5280 section 4.1.2.5", "compare the clocks of this machine and of the issuer", notYetValid},
	{"renewal-overdue", "OVERDUE", "docs/architecture.md, Renewal", "is the program that renews it running, and does it reach the authority?", overdue},
	{"expiring", "", "docs/architecture.md, Renewal", "renew it", expiring},
	{"key-mismatch", "", "RFC 8446 section 4.4.3", "put back the key and the certificate of one issue", keyMismatch},
	{"key-readable", "", "docs/threat-model.md, A service's key", "chmod 600, and a new key if others may have read it", keyReadable},
	{"chain-incomplete", "", "RFC 8446 section 4.4.2", "append the missing intermediate behind the leaf", chainCheck(chainIncomplete)},
	{"untrusted", "", "RFC 5280 section 6.1", "is this the right trust bundle, or the certificate of another authority?", chainCheck(chainUntrusted)},
	{"chain-invalid", "", "RFC 5280 section 6.1", "issue it again from a sound chain", chainCheck(chainInvalid)},
	{"name-mismatch", "", "RFC 9525 section 6", "issue it with the name that clients use, as a subject alternative name", nameMismatch},
}

func expired(s *Subject, now time.Time) (Severity, string) {
	if now.Before(s.Cert.NotAfter) {
		return fine, ""
	}
	return Crit, "expired " + span(now.Sub(s.Cert.NotAfter)) + " ago"
}

func notYetValid(s *Subject, now time.Time) (Severity, string) {
	if !now.Before(s.Cert.NotBefore) {
		return fine, ""
	}
	return Crit, "not valid for another " + span(s.Cert.NotBefore.Sub(now))
}

func overdue(s *Subject, now time.Time) (Severity, string) {
	if !s.renews() || !now.Before(s.Cert.NotAfter) {
		return fine, ""
	}
	why, late := lifetime.Overdue(s.Cert.NotBefore, s.Cert.NotAfter, now)
	if !late {
		return fine, ""
	}
	return Crit, "renewal overdue: " + why
}

func expiring(s *Subject, now time.Time) (Severity, string) {
	left := s.Cert.NotAfter.Sub(now)
	if s.renews() || left <= 0 {
		return fine, ""
	}
	text := "expires in " + span(left)
	switch life := life(s.Cert); {
	case left <= min(critBefore, life/critShare):
		return Crit, text
	case left <= min(warnBefore, life/warnShare):
		return Warn, text
	}
	return fine, ""
}

func keyMismatch(s *Subject, _ time.Time) (Severity, string) {
	if s.Key == nil || s.Key.Fits {
		return fine, ""
	}
	return Crit, "the key in " + s.Key.Path + " does not fit"
}

func keyReadable(s *Subject, _ time.Time) (Severity, string) {
	if s.Key == nil || s.Key.Mode&looseBits == 0 {
		return fine, ""
	}
	return Warn, fmt.Sprintf("others may use its key: %s has mode %04o", s.Key.Path, s.Key.Mode.Perm())
}

func nameMismatch(s *Subject, _ time.Time) (Severity, string) {
	if s.Host == "" || !s.leaf() || s.Cert.VerifyHostname(s.Host) == nil {
		return fine, ""
	}
	return Crit, "it does not have the name " + s.Host
}

// judge runs the table over one subject.
func judge(s *Subject, now time.Time) (found []Finding, state string) {
	worst := fine
	state = "OK"
	for _, c := range checks {
		if s.Err != nil && !slices.Contains(ofDates, c.id) {
			continue
		}
		severity, text := c.judge(s, now)
		if severity == fine {
			continue
		}
		found = append(found, Finding{Check: c.id, Severity: severity, Text: printable.Clean(text), Remedy: c.remedy, Cites: c.cites})
		if severity <= worst {
			continue // the table's order decides between equals
		}
		worst, state = severity, c.word
		if state == "" {
			state = map[Severity]string{Warn: "WARN", Crit: "CRIT"}[severity]
		}
	}
	return found, state
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
