package audit

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/printable"
)

// Baseline are findings that somebody has accepted. It is a text of lines, so that it can be
// reviewed like code and can say why:
//
//	# CHECK SUBJECT [until=DATE]
//	weak-key sha256:5f0c… until=2027-01-31 # goes away with the old gateway
//	key-readable "/etc/old app/tls.crt"
//
// The subject is the SHA-256 of a certificate, or the place of a certificate that is renewed
// often. An acceptance ends with its DATE (in UTC).
type Baseline struct {
	terms map[acceptance]time.Time // when each ends; zero for never
	order []acceptance             // as in the text
}

type acceptance struct{ check, subject string }

func (a acceptance) String() string { return a.check + " " + quoted(a.subject) }

const (
	bySHA256  = "sha256:"
	untilMark = "until="
)

// ParseBaseline reads a baseline. It refuses a text with a wrong line, because a misspelt
// line would accept nothing, or another finding than was meant. The error has the number
// of the line.
func ParseBaseline(text string) (*Baseline, error) {
	b := &Baseline{terms: map[acceptance]time.Time{}}
	n := 0
	for line := range strings.Lines(text) {
		n++
		a, over, err := parseAcceptance(strings.TrimRight(line, "\r\n"))
		if err != nil {
			return nil, fmt.Errorf("parsing the baseline: line %d: %w", n, err)
		}
		if a.check == "" {
			continue
		}
		if _, twice := b.terms[a]; twice {
			return nil, fmt.Errorf("parsing the baseline: line %d: %s is there already", n, a)
		}
		b.terms[a] = over
		b.order = append(b.order, a)
	}
	return b, nil
}

// parseAcceptance reads a line. The result for a blank line and for a comment has no check.
func parseAcceptance(line string) (a acceptance, over time.Time, err error) {
	a.check, line = word(line)
	if a.check == "" {
		return a, over, nil
	}
	if !slices.ContainsFunc(checks, func(c check) bool { return c.id == a.check }) {
		return a, over, fmt.Errorf("there is no check %.40q", a.check)
	}
	if a.subject, line, err = parseSubject(line); err != nil {
		return a, over, err
	}
	until, line := word(line)
	if day, ok := strings.CutPrefix(until, untilMark); ok {
		last, err := time.Parse(time.DateOnly, day)
		if err != nil {
			return a, over, fmt.Errorf("%.40q: want a date like %s2027-01-31", until, untilMark)
		}
		over = last.AddDate(0, 0, 1)
		until, _ = word(line)
	}
	if until != "" {
		return a, over, fmt.Errorf("what is %.40q? want CHECK SUBJECT [%sDATE] [# why]", until, untilMark)
	}
	return a, over, nil
}

// word splits off the first word of a line. The word is "" at the end of the line and before
// a comment.
func word(line string) (first, rest string) {
	line = strings.TrimLeft(line, " \t")
	if line == "" || line[0] == '#' {
		return "", ""
	}
	if i := strings.IndexAny(line, " \t"); i >= 0 {
		return line[:i], line[i:]
	}
	return line, ""
}

// parseSubject reads a hash, a place without blanks, or a place in double quotes.
func parseSubject(line string) (parseSubject, rest string, err error) {
	line = strings.TrimLeft(line, " \t")
	if quote, err := strconv.QuotedPrefix(line); err == nil && line[0] == '"' {
		parseSubject, err = strconv.Unquote(quote)
		rest = line[len(quote):]
		if rest != "" && rest[0] != ' ' && rest[0] != '\t' {
			return "", "", fmt.Errorf("no blank behind %.80s", quote)
		}
		return parseSubject, rest, err
	}
	parseSubject, rest = word(line)
	if parseSubject == "" || strings.Contains(parseSubject, `"`) {
		return "", "", fmt.Errorf("want a subject: %sHEX, or a place, in double quotes if it has blanks", bySHA256)
	}
	if !wholeHash(parseSubject) {
		return "", "", fmt.Errorf("%.80q: want %s and 64 hexadecimal digits, lower case", parseSubject, bySHA256)
	}
	return parseSubject, rest, nil
}

// wholeHash returns false for a subject that begins as a hash and is not a whole one, because
// it was cut off or is the name of a file. Such a name must be in quotes.
func wholeHash(s string) bool {
	digits, isHash := strings.CutPrefix(s, bySHA256)
	b, err := hex.DecodeString(digits)
	return !isHash || err == nil && len(b) == sha256.Size && strings.ToLower(digits) == digits
}

// quoted returns a subject in the form that parseAcceptance reads back.
func quoted(s string) string {
	if s == "" || !wholeHash(s) || strings.HasPrefix(s, "#") || strings.ContainsAny(s, " \t\"\\") || printable.Clean(s) != s {
		return strconv.Quote(s)
	}
	return s
}

// baselineFilter applies a baseline to the rows of a run, and makes the next one.
type baselineFilter struct {
	*Baseline
	used map[acceptance]bool   // those that matched a finding
	next map[acceptance]string // with the name of the certificate; nil if no new baseline is wanted
}

// newBaselineFilter returns the filter of a baseline, which may be nil. next says whether a
// new baseline is wanted.
func newBaselineFilter(b *Baseline, next bool) *baselineFilter {
	a := &baselineFilter{Baseline: b, used: map[acceptance]bool{}}
	if b == nil {
		a.Baseline = &Baseline{}
	}
	if next {
		a.next = map[acceptance]string{}
	}
	return a
}

// apply removes the accepted findings of a row. A finding whose acceptance has ended stays,
// and says so.
func (a *baselineFilter) apply(r *Row) {
	if r.Cert == nil && r.Document == nil || len(r.Findings) == 0 || len(a.order) == 0 && a.next == nil {
		return
	}
	self := r.Place // a document has no fingerprint
	if r.Cert != nil {
		self = bySHA256 + r.Cert.HexFingerprint()
	}
	left := r.Findings[:0:0]
	for _, f := range r.Findings {
		key := acceptance{f.Check, self}
		over, accepted := a.terms[key]
		if !accepted {
			key.subject = r.Place
			over, accepted = a.terms[key]
		}
		a.used[key] = a.used[key] || accepted
		switch {
		case accepted && (over.IsZero() || r.Judged.Before(over)):
			r.Accepted = append(r.Accepted, f.Check)
			a.keep(r, f, key.subject)
			continue
		case accepted:
			f.Text += " (it was accepted until " + over.AddDate(0, 0, -1).Format(time.DateOnly) + ")"
		}
		a.keep(r, f, "")
		left = append(left, f)
	}
	r.Findings = left
}

// keep adds a finding to the next baseline. If subject is "", it is the certificate, or the
// place of one that a program renews, because its next certificate has another hash.
func (a *baselineFilter) keep(r *Row, f Finding, subject string) {
	if a.next == nil || f.Severity < Warn {
		return
	}
	var name string
	if r.Cert != nil {
		name = r.Cert.Name
	} else {
		name, subject = r.Document.Name, r.Place
	}
	if subject == "" {
		subject = bySHA256 + r.Cert.HexFingerprint()
		if r.AutoRenewed() {
			subject = r.Place
		}
	}
	a.next[acceptance{f.Check, subject}] = name
}

// stale returns the acceptances that matched no finding, of the checks that ran.
func (a *baselineFilter) stale(ran []check) (out []string) {
	for _, key := range a.order {
		if !a.used[key] && slices.ContainsFunc(ran, func(c check) bool { return c.id == key.check }) {
			out = append(out, key.String())
		}
	}
	return out
}

// write writes the next baseline. A date that has passed is left out, because writing the
// new baseline accepts the finding again.
func (a *baselineFilter) write(out io.Writer, now time.Time) error {
	w := bufio.NewWriter(out)
	_, _ = fmt.Fprintf(w, "# Accepted findings of artstore-pki audit: CHECK SUBJECT [%sDATE] [# why]\n", untilMark) // Flush keeps the error
	for _, key := range slices.SortedFunc(maps.Keys(a.next), func(a, b acceptance) int { return strings.Compare(a.String(), b.String()) }) {
		line := key.String()
		if over := a.terms[key]; now.Before(over) {
			line += " " + untilMark + over.AddDate(0, 0, -1).Format(time.DateOnly)
		}
		_, _ = fmt.Fprintf(w, "%s # %s\n", line, printable.Clean(a.next[key]))
	}
	return w.Flush()
}
