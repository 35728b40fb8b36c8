package audit

import (
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/printable"
)

// Severity orders findings.
type Severity int

// Severities, mildest first. Nobody has to act on an Info: its certificate counts as fine,
// and tables do not show it.
const (
	severityOK Severity = iota
	Info
	Warn
	Crit
)

// String returns the name, in lower case.
func (s Severity) String() string {
	return [...]string{"ok", "info", "warn", "crit"}[s]
}

// MarshalText returns the name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is the result of one check for a subject.
type Finding struct {
	Check    string   `json:"check"` // the id of the check, which never changes
	Severity Severity `json:"severity"`
	Text     string   `json:"text"`
	Remedy   string   `json:"remedy"` // what to do
	Cites    string   `json:"cites"`  // the standard or the document that rules

	of *check
}

// check is a row of the table. It has judge or join; the checks of documents have neither.
type check struct {
	id string
	// word is the state of a row of which this is the worst finding; "" means the name
	// of the severity.
	word string
	// worst is the worst severity that the check reports.
	worst  Severity
	cites  string
	remedy string
	// judge looks at one subject. It returns severityOK if there is nothing to report.
	// Several goroutines call it.
	judge func(*Subject, criteria) (Severity, string)
	// join makes the function of a check that compares rows. That function has a memory
	// of its own, sees all rows in the order of the report, and reads the inventory.
	join func(*inventory) func(*Row) (Severity, string)
}

// finding returns a finding of the check. The text may contain text of a stranger.
func (c *check) finding(severity Severity, text string) Finding {
	return Finding{Check: c.id, Severity: severity, Text: printable.Clean(text), Remedy: c.remedy, Cites: c.cites, of: c}
}

// criteria are the measures of the checks.
type criteria struct {
	now        time.Time // the moment at which the row is judged
	warn, crit threshold
	longest    time.Duration // Config.MaxLifetime
	pools      *pools        // shared by all rows
	indexes    *indexes      // shared by all rows
}

// threshold says how near its end a certificate is reported: within a time before the end,
// or with a share of its life left, whichever comes later. A field that is zero does not
// count. A time alone would be a permanent alarm for short lives, and a share alone would
// warn years before the end of a root.
type threshold struct {
	before time.Duration
	share  float64
}

var (
	defaultWarn = threshold{30 * 24 * time.Hour, 1. / 3}
	defaultCrit = threshold{7 * 24 * time.Hour, 1. / 6}
)

// window returns how long before its end a certificate with this life is reported.
func (t threshold) window(life humantime.Seconds) humantime.Seconds {
	share, before := humantime.Seconds(t.share*float64(life)), humantime.InSeconds(t.before)
	switch {
	case t.share == 0:
		return before
	case t.before == 0:
		return share
	}
	return min(before, share)
}

// String returns a clause for the policy in a report.
func (t threshold) String() string {
	share := fmt.Sprintf("when %.0f %% of its life are left", 100*t.share)
	switch {
	case t.share == 0:
		return humantime.Short(humantime.InSeconds(t.before)) + " before its end"
	case t.before == 0:
		return share
	}
	return fmt.Sprintf("%s before its end or %s, whichever comes later", humantime.Short(humantime.InSeconds(t.before)), share)
}
