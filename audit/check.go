package audit

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/printable"
)

// Severity orders findings.
type Severity int

// Severities, mildest first. Info is worth knowing and nothing to act on: it
// leaves a certificate fine, and a table does not show it.
const (
	fine Severity = iota
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
// in the order of the report, and what all of them know of the others in a view.
type check struct {
	id     string
	word   string   // state of a row whose worst finding this is; empty: the severity's
	worst  Severity // that it can have
	cites  string
	remedy string
	judge  func(*Subject, criteria) (Severity, string)
	join   func(*view) func(*Row) (Severity, string)
}

// criteria are what checks measure by.
type criteria struct {
	now        time.Time
	warn, crit threshold
	longest    time.Duration // life of a leaf by the operator's policy; 0 for none
	pools      *pools
	known      *verified
}

// checks are in the order in which a row lists its findings; the first of the
// worst gives the row its state. Dates come first, because they say when it
// breaks; then what does not fit together now, then what is weak.
var checks = []check{
	{"expired", "EXPIRED", Crit, "RFC 5280 section 4.1.2.5", "replace it: every peer refuses it", expired, nil},
	{"not-yet-valid", "NOT-YET", Crit, "RFC 5280 section 4.1.2.5", "compare the clocks of this machine and of the issuer", notYetValid, nil},
	{"renewal-overdue", "OVERDUE", Crit, "docs/architecture.md, Renewal", "is the program that renews it running, and does it reach the authority?", overdue, nil},
	{"revoked", "REVOKED", Crit, "RFC 5280 section 5", "issue it again for a new key: who asks for revocation refuses it", nil, revoked},
	{"expiring", "", Crit, "docs/architecture.md, Renewal", "renew it", expiring, nil},
	{"renewer-stopped", "", Warn, "docs/architecture.md, Renewal", "is the program that renews it running? it was more eager before", nil, renewerStopped},
	{"replaced", "", Warn, "docs/architecture.md, Renewal", "have the server read its files again, and look why it did not", nil, replaced},
	{"not-seen", "", Warn, "docs/audit-report.md, Drift", "look for it where it belongs, or revoke it: does its owner have it?", nil, notSeen},
	{"not-recorded", "", Crit, "docs/audit-report.md, Drift", "find out who signed it: without a record it cannot be revoked by name", nil, notRecorded},
	{"key-mismatch", "", Crit, "RFC 8446 section 4.4.3", "put back the key and the certificate of one issue", keyMismatch, nil},
	{"key-readable", "", Warn, "docs/threat-model.md, A service's key", "chmod 600, and a new key if others may have read it", keyReadable, nil},
	{"chain-incomplete", "", Crit, "RFC 8446 section 4.4.2", "append the missing intermediate behind the leaf", chainCheck(chainIncomplete), nil},
	{"untrusted", "", Crit, "RFC 5280 section 6.1", "is this the right trust bundle, or the certificate of another authority?", chainCheck(chainUntrusted), nil},
	{"chain-invalid", "", Crit, "RFC 5280 section 6.1", "issue it again from a sound chain", chainCheck(chainInvalid), nil},
	{"chain-order", "", Warn, "RFC 8446 section 4.4.2", "put the leaf first and behind each certificate its issuer: not every peer sorts", chainOrder, nil},
	{"name-mismatch", "", Crit, "RFC 9525 section 6", "issue it with the name that clients use, as a subject alternative name", nameMismatch, nil},
	{"no-san", "", Warn, "RFC 9525 section 6", "issue it with its names as subject alternative names", noNames, nil},
	{"wrong-usage", "", Crit, "RFC 5280 sections 4.2.1.3 and 4.2.1.12", "issue it with the profile of what it is used for", wrongUsage, nil},
	{"weak-key", "", Crit, "NIST SP 800-57 part 1 section 5.6, CA/B BR section 6.1.5", "issue it for a new key: ECDSA P-256, or RSA of 2048 bits and more", weakKey, nil},
	{"weak-signature", "", Crit, "RFC 9155, CA/B BR section 7.1.3.2", "issue it again, signed with SHA-256", weakSignature, nil},
	{"long-lived", "", Warn, "support.apple.com/103769, CA/B BR section 6.3.2, --max-lifetime", "issue it for a shorter time, and have a program renew it", longLived, nil},
	{"bad-signature", "", Crit, "RFC 2986 section 4.2, RFC 5280 section 6.3.3", "do not trust it: have it made again by whoever holds the key", nil, nil}, // of documents; see there
	{"same-key", "", Warn, "docs/threat-model.md, A service's key", "give each service a key of its own: who has one is all of them", nil, sharedKeys},
	{"tls-version", "", Warn, "NIST SP 800-52 revision 2 section 3.1", "turn on TLS 1.3 on the server", oldProtocol, nil},
	{"key-exchange", "", Info, "FIPS 203, draft-ietf-tls-ecdhe-mlkem", "let the server take X25519MLKEM768: what is recorded today may be read when quantum computers come", keyExchangeOld, nil},
}

// ofDates are the checks that need nothing but dates, so that a certificate
// that was read in part only is judged by them.
var ofDates = []string{"expired", "not-yet-valid", "renewal-overdue", "expiring"}

// Checks lists what is checked: each check as a finding of its worst severity, without a text.
func Checks() (out []Finding) {
	for _, c := range checks {
		out = append(out, Finding{Check: c.id, Severity: c.worst, Remedy: c.remedy, Cites: c.cites})
	}
	return out
}

// judge runs the checks that look at one subject.
func judge(s *Subject, table []check, at criteria) (found []Finding) {
	for i := range table {
		c := &table[i]
		if c.judge == nil || s.Err != nil && !slices.Contains(ofDates, c.id) {
			continue
		}
		if severity, text := c.judge(s, at); severity != fine {
			found = append(found, c.finding(severity, text))
		}
	}
	return found
}

func (c *check) finding(severity Severity, text string) Finding {
	return Finding{Check: c.id, Severity: severity, Text: printable.Clean(text), Remedy: c.remedy, Cites: c.cites, of: c}
}

// state is the word for what was found; of the worst findings, the first counts.
func state(found []Finding) string {
	word, worst := "OK", fine
	for _, f := range found {
		if f.Severity > max(worst, Info) {
			worst = f.Severity
			word = cmp.Or(f.of.word, strings.ToUpper(worst.String()))
		}
	}
	return word
}

// joined are the checks of what rows have in common, with their memory.
type joined struct {
	table  []check
	view   *view
	judges []func(*Row) (Severity, string) // nil for a check that needs none
}

func newJoined(table []check, v *view) *joined {
	j := &joined{table, v, make([]func(*Row) (Severity, string), len(table))}
	for i, c := range table {
		if c.join != nil {
			j.judges[i] = c.join(v)
		}
	}
	return j
}

// add puts what they find among the findings of a row, in the order of the table.
func (j *joined) add(r *Row) {
	j.view.note(r)
	for i, judge := range j.judges {
		if judge == nil {
			continue
		}
		severity, text := judge(r)
		if severity == fine {
			continue
		}
		order := func(f Finding) int { return slices.IndexFunc(j.table, func(c check) bool { return c.id == f.Check }) }
		at := 0
		for at < len(r.Findings) && order(r.Findings[at]) < i {
			at++
		}
		r.Findings = slices.Insert(r.Findings, at, j.table[i].finding(severity, text))
	}
}
