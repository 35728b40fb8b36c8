package audit

import (
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/printable"
)

// Severity orders findings.
type Severity int

// Severities, mildest first. Info is worth knowing and nothing to act on: it
// leaves a certificate fine, and a table does not show it.
const (
	severityOK Severity = iota
	Info
	Warn
	Crit
)

func (s Severity) String() string {
	return [...]string{"ok", "info", "warn", "crit"}[s]
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

	of *check
}

// check is a row of the table. judge returns "" for a subject that is fine or
// none of its business; it may run beside itself. A check of what rows have in
// common has join instead: that makes a judge with a memory, which sees every row
// in the order of the report, and what all of them know of the others in an inventory.
type check struct {
	id     string
	word   string   // state of a row whose worst finding this is; empty: the severity's
	worst  Severity // that it can have
	cites  string
	remedy string
	judge  func(*Subject, criteria) (Severity, string)
	join   func(*inventory) func(*Row) (Severity, string)
}

func (c *check) finding(severity Severity, text string) Finding {
	return Finding{Check: c.id, Severity: severity, Text: printable.Clean(text), Remedy: c.remedy, Cites: c.cites, of: c}
}

// criteria are what checks measure by.
type criteria struct {
	now        time.Time
	warn, crit threshold
	longest    time.Duration // life of a leaf by the operator's policy; 0 for none
	pools      *pools
	indexes    *indexes
}

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

// window is the time before the end of such a life.
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
