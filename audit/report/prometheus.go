package report

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/printable"
)

const metricPrefix = "artstore_audit_"

// prometheusRenderer writes the text format of Prometheus, for the textfile collector of
// its node exporter. Dates are points in time and not the time left: a rule subtracts
// time(), and a series that does not change costs almost nothing to keep. All series of a
// metric must stand together, so all metrics but the first are kept: a line for each
// certificate, each finding and each place that was not read.
type prometheusRenderer struct {
	w         *bufio.Writer
	notBefore []byte
	lists     []byte
	// named has findings with their certificates.
	named  []byte
	unread []byte
	// seen has hashes of the label sets that were written; see first.
	seen     map[uint64]bool
	seed     maphash.Seed
	findings []countedFinding
}

func newPrometheus(out io.Writer, _ Terminal) audit.Renderer {
	p := &prometheusRenderer{w: bufio.NewWriter(out), seen: map[uint64]bool{}, seed: maphash.MakeSeed()}
	// Each check has a series with its worst severity, also without a finding: a rule on a
	// series that is absent most of the time is hard to write.
	for _, c := range audit.Checks() {
		p.findings = append(p.findings, countedFinding{Finding: c})
	}
	p.family("not_after_timestamp_seconds", "When a certificate ends.")
	return p
}

// family begins a metric. All of them are gauges.
func (p *prometheusRenderer) family(name, help string) {
	_, _ = fmt.Fprintf(p.w, "# HELP %[1]s%[2]s %[3]s\n# TYPE %[1]s%[2]s gauge\n", metricPrefix, name, help) // Flush keeps the error
}

// Row implements [audit.Renderer].
func (p *prometheusRenderer) Row(r *audit.Row) error {
	for _, f := range r.Findings {
		p.count(f)
	}
	if r.Err != nil {
		labels := fmt.Sprintf(`kind="%s",place="%s",block="%d",reason="%s"`, metricLabel(r.Kind), metricLabel(shortenPlace(r.Place)), r.Block, reason(r.Err))
		p.unread = p.once(p.unread, "place_unread", labels)
	}
	name, fingerprint := "", ""
	if r.Cert != nil {
		name, fingerprint = metricLabel(printable.Shorten(r.Cert.Name, maxName)), r.Cert.HexFingerprint()
	}
	labels := fmt.Sprintf(`kind="%s",place="%s",block="%d",name="%s",fingerprint_sha256="%s"`, metricLabel(r.Kind), metricLabel(shortenPlace(r.Place)), r.Block, name, fingerprint)
	for _, f := range r.Findings {
		p.named = p.once(p.named, "certificate_finding", fmt.Sprintf(`%s,check="%s",severity="%s"`, labels, f.Check, f.Severity))
	}
	if d := r.Document; d != nil && d.What == cert.RevocationList && !d.Until.IsZero() {
		labels := fmt.Sprintf(`place="%s",block="%d",name="%s"`, metricLabel(shortenPlace(r.Place)), r.Block, metricLabel(printable.Shorten(d.Name, maxName)))
		if p.first("crl", labels) {
			p.lists = fmt.Appendf(p.lists, "%scrl_next_update_timestamp_seconds{%s} %d\n", metricPrefix, labels, d.Until.Unix())
		}
	}
	if r.Cert == nil || !p.first("", labels) {
		return nil
	}
	p.notBefore = fmt.Appendf(p.notBefore, "%snot_before_timestamp_seconds{%s} %d\n", metricPrefix, labels, r.Cert.NotBefore.Unix())
	_, err := fmt.Fprintf(p.w, "%snot_after_timestamp_seconds{%s} %d\n", metricPrefix, labels, r.Cert.NotAfter.Unix())
	return err
}

// once appends a series with the value 1, unless it was written before.
func (p *prometheusRenderer) once(to []byte, metric, labels string) []byte {
	if !p.first(metric, labels) {
		return to
	}
	return fmt.Appendf(to, "%s%s{%s} 1\n", metricPrefix, metric, labels)
}

// first reports whether a label set is new. Prometheus refuses a whole page that has one
// series twice. Rows with equal labels, after these were escaped and cut, show the same
// certificate, so that nothing is lost. The seed is random, so nobody can prepare two names
// with one hash.
func (p *prometheusRenderer) first(metric, labels string) bool {
	id := maphash.String(p.seed, metric+"\x00"+labels)
	if p.seen[id] {
		return false
	}
	p.seen[id] = true
	return true
}

// reasons are the words for why a place was not read. Their number is bounded: a label
// with the text of the error would make a new series for each error.
var reasons = []struct {
	word string
	is   func(error) bool
}{
	{"absent", func(err error) bool { return errors.Is(err, fs.ErrNotExist) }},
	{"permission", func(err error) bool { return errors.Is(err, fs.ErrPermission) }},
	{"refused", func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }},
	{"timeout", func(err error) bool {
		return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT)
	}},
	{"large", func(err error) bool { return isTooLarge(err) }},
	{"kind", func(err error) bool { return errors.Is(err, cert.ErrNotRegular) }},
}

// reason returns the word of reasons for an error, or "other".
func reason(err error) string {
	for _, r := range reasons {
		if r.is(err) {
			return r.word
		}
	}
	return "other"
}

// End implements [audit.Renderer].
func (p *prometheusRenderer) End(s *audit.Summary) error {
	p.family("not_before_timestamp_seconds", "When a certificate begins to be valid.")
	_, _ = p.w.Write(p.notBefore)
	p.family("findings", "Findings by check and severity.")
	for _, f := range p.findings {
		_, _ = fmt.Fprintf(p.w, "%sfindings{check=\"%s\",severity=\"%s\"} %d\n", metricPrefix, f.Check, f.Severity, f.count)
	}
	p.family("certificate_finding", "1 for each finding, with the certificate that has it.")
	_, _ = p.w.Write(p.named)
	p.family("crl_next_update_timestamp_seconds", "When a revocation list is out of date.")
	_, _ = p.w.Write(p.lists)
	p.family("place_unread", "1 for each place that could not be read, or not in full.")
	_, _ = p.w.Write(p.unread)
	single := func(name, help string, value int64) {
		p.family(name, help)
		_, _ = fmt.Fprintf(p.w, "%s%s %d\n", metricPrefix, name, value)
	}
	single("certificates", "Certificates that were found, each counted once.", int64(s.Certificates))
	single("unchecked", "Certificates of which nothing but dates was judged, and places that could not be read.", int64(s.Partial+s.Unread))
	single("chains_not_judged", "Leaves whose chain was not judged for want of a trust bundle.", int64(s.Unjudged))
	single("judged_timestamp_seconds", "The moment that the report is of.", s.Now.Unix())
	complete := int64(0)
	if s.Complete {
		complete = 1
	}
	single("made_timestamp_seconds", "When the report was made; before the moment that it is of, it is a forecast.", s.ReportTime().Unix())
	single("complete", "0 if the audit was interrupted.", complete)
	return p.w.Flush()
}

// countedFinding is a check with a severity, and how many findings have both.
type countedFinding struct {
	audit.Finding
	count int
}

// count counts a finding by its check and severity.
func (p *prometheusRenderer) count(f audit.Finding) {
	same := func(c countedFinding) bool { return c.Check == f.Check && c.Severity == f.Severity }
	at := slices.IndexFunc(p.findings, same)
	if at < 0 {
		at, p.findings = len(p.findings), append(p.findings, countedFinding{Finding: f})
	}
	p.findings[at].count++
}

// metricLabel escapes a text for the value of a label. Characters that do not print are
// escaped first, so that the label is also safe in a dashboard.
func metricLabel(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(printable.Clean(s))
}

// isTooLarge reports whether an input was above a limit of the audit.
func isTooLarge(err error) bool {
	_, is := errors.AsType[cert.TooLargeError](err)
	return is
}
