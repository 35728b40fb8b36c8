package report

import (
	"bufio"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/printable"
)

const metricPrefix = "artstore_audit_"

// Metrics makes the renderer of the format prom, for a program that serves it. [New] makes one with
// the zero values.
type Metrics struct {
	Out io.Writer
	// MaxSeries bounds the series of certificates, lists and places. The rows that someone should
	// act on come first. What is cut is counted in artstore_audit_series_cut. 0 means no bound.
	MaxSeries int
	// Since returns when a finding was first seen, or the zero time if that has no series. nil is
	// a function that returns the zero time. It is called once for each finding of the report.
	Since func(*audit.Row, *audit.Finding) time.Time
}

// Renderer returns the renderer for one report.
func (m Metrics) Renderer() audit.Renderer {
	p := &prometheusRenderer{Metrics: m, w: bufio.NewWriterSize(m.Out, 64<<10), rows: map[uint64]int{}, seed: maphash.MakeSeed()}
	// Each check has a series with its worst severity, also without a finding: a rule on a
	// series that is absent most of the time is hard to write.
	for _, c := range audit.Checks() {
		p.findings = append(p.findings, countedFinding{Finding: c})
	}
	return p
}

// prometheusRenderer writes the text format of Prometheus, for the textfile collector of
// its node exporter and for our own. Dates are points in time and not the time left: a rule
// subtracts time(), and a series that does not change costs almost nothing to keep. All series of
// a metric must stand together, so all rows are kept, each in a small form.
type prometheusRenderer struct {
	Metrics
	w    *bufio.Writer
	kept []metricRow
	// rows has the places in kept by hashes of labels; see add.
	rows     map[uint64]int
	seed     maphash.Seed
	findings []countedFinding
	cut      int    // rows that were not kept
	scratch  []byte // the labels that are written now
}

func newPrometheus(out io.Writer, _ Terminal) audit.Renderer { return Metrics{Out: out}.Renderer() }

// metricRow is what the series of one row are made of. A time is in seconds since 1970.
type metricRow struct {
	// Labels are made of these when they are written: as text they would be the most of a row.
	kind, place string
	block       int
	cert        *cert.Certificate // nil for a row without one
	rank        int

	renewed               bool
	chainEnds, staleSince int64  // 0 for none
	unread                string // a word of reasons, or ""
	notes                 []metricNote
	list                  *metricList
}

// metricNote is a finding.
type metricNote struct {
	check    string
	severity audit.Severity
	since    int64 // 0 for none
}

// metricList is a revocation list.
type metricList struct {
	labels      string
	from, until int64
	number      float64
	numbered    bool
}

// Row implements [audit.Renderer].
func (p *prometheusRenderer) Row(r *audit.Row) error {
	var row metricRow
	for i := range r.Findings {
		f := &r.Findings[i]
		p.count(f)
		n := metricNote{check: f.Check, severity: f.Severity}
		if p.Since != nil {
			if at := p.Since(r, f); !at.IsZero() {
				n.since = at.Unix()
			}
		}
		row.notes = append(row.notes, n)
	}
	if r.Err != nil {
		row.unread = reason(r.Err)
	}
	row.rank = r.Rank()
	if p.MaxSeries > 0 && (len(p.kept) >= 2*p.MaxSeries || row.rank == 0 && len(p.kept) >= p.MaxSeries) {
		p.cut++
		return nil
	}
	row.kind, row.place, row.block, row.cert, row.list = r.Kind, r.Place, r.Block, r.Cert, listMetrics(r)
	if ends := r.ChainEnds(); !ends.IsZero() {
		row.chainEnds = ends.Unix()
	}
	row.renewed = r.AutoRenewed()
	if r.Cert != nil && !r.Stale.IsZero() {
		row.staleSince = r.Stale.Unix()
	}
	p.add(&row)
	return nil
}

// appendPlace appends the labels that each row has.
func (m *metricRow) appendPlace(to []byte) []byte {
	to = append(append(to, `kind="`...), metricLabel(m.kind)...)
	to = append(append(to, `",place="`...), metricLabel(shortenPlace(m.place))...)
	to = strconv.AppendInt(append(to, `",block="`...), int64(m.block), 10)
	return append(to, '"')
}

// appendLabels appends the labels of a certificate. They are empty for a row without one.
func (m *metricRow) appendLabels(to []byte) []byte {
	to = append(m.appendPlace(to), `,name="`...)
	if m.cert != nil {
		to = append(to, metricLabel(printable.Shorten(m.cert.Name, maxName))...)
	}
	to = append(to, `",fingerprint_sha256="`...)
	if m.cert != nil {
		to = hex.AppendEncode(to, m.cert.Fingerprint[:])
	}
	return append(to, '"')
}

// renewal returns when a program renews the certificate, and from when on it is overdue.
func (m *metricRow) renewal() (from, overdue int64) {
	if !m.renewed {
		return 0, 0
	}
	at, _ := lifetime.RenewalWindow(m.cert.NotBefore, m.cert.NotAfter)
	return at.Unix(), lifetime.OverdueAt(m.cert.NotBefore, m.cert.NotAfter).Unix()
}

// listMetrics returns the numbers of a revocation list, or nil for another row. A number of a list
// has up to 20 octets (RFC 5280 §5.2.3), of which a series has the first 53 bits.
func listMetrics(r *audit.Row) *metricList {
	d := r.Document
	if d == nil || d.What != cert.RevocationList {
		return nil
	}
	l := &metricList{labels: fmt.Sprintf(`place="%s",block="%d",name="%s"`, metricLabel(shortenPlace(r.Place)), r.Block, metricLabel(printable.Shorten(d.Name, maxName)))}
	if !d.From.IsZero() {
		l.from = d.From.Unix()
	}
	if !d.Until.IsZero() {
		l.until = d.Until.Unix()
	}
	for _, one := range d.Details {
		if one.Label == "number" {
			number, err := strconv.ParseFloat(one.Text, 64)
			l.number, l.numbered = number, err == nil
		}
	}
	return l
}

// add keeps a row. Prometheus refuses a whole page that has one series twice, so rows with equal
// labels, after these were escaped and cut, are one: they show the same certificate, and nothing
// but further findings is new. The seed is random, so nobody can prepare two names with one hash.
func (p *prometheusRenderer) add(row *metricRow) {
	p.scratch = row.appendLabels(p.scratch[:0])
	id := maphash.Bytes(p.seed, p.scratch)
	at, known := p.rows[id]
	if !known {
		p.rows[id] = len(p.kept)
		p.kept = append(p.kept, *row)
		return
	}
	first := &p.kept[at]
	for _, n := range row.notes {
		if !slices.ContainsFunc(first.notes, func(o metricNote) bool { return o.check == n.check && o.severity == n.severity }) {
			first.notes = append(first.notes, n)
		}
	}
	first.rank, first.unread = max(first.rank, row.rank), cmp.Or(first.unread, row.unread)
	if first.list == nil {
		first.list = row.list
	}
}

// metricFamilies are the metrics of rows, in the order in which they are written. A function writes
// the series of one row.
var metricFamilies = []struct {
	name, help string
	write      func(p *prometheusRenderer, name string, m *metricRow) int
}{
	{"not_after_timestamp_seconds", "When a certificate ends.", func(p *prometheusRenderer, name string, m *metricRow) int {
		return p.dated(m, name, func(c *cert.Certificate) int64 { return c.NotAfter.Unix() })
	}},
	{"not_before_timestamp_seconds", "When a certificate begins to be valid.", func(p *prometheusRenderer, name string, m *metricRow) int {
		return p.dated(m, name, func(c *cert.Certificate) int64 { return c.NotBefore.Unix() })
	}},
	{"chain_not_after_timestamp_seconds", "The first end in the verified chain of a certificate.", func(p *prometheusRenderer, name string, m *metricRow) int {
		return p.series(m.chainEnds != 0, name, m, "", m.chainEnds)
	}},
	{"renewal_window_start_timestamp_seconds", "From when on a program renews a certificate.", func(p *prometheusRenderer, name string, m *metricRow) int {
		from, _ := m.renewal()
		return p.series(m.renewed, name, m, "", from)
	}},
	{"renewal_overdue_timestamp_seconds", "From when on a renewal that has not come is a failure.", func(p *prometheusRenderer, name string, m *metricRow) int {
		_, overdue := m.renewal()
		return p.series(m.renewed, name, m, "", overdue)
	}},
	{"stale_since_timestamp_seconds", "When a certificate was last read whose place cannot be read now.", func(p *prometheusRenderer, name string, m *metricRow) int {
		return p.series(m.staleSince != 0, name, m, "", m.staleSince)
	}},
	{"certificate_finding", "1 for each finding, with the certificate that has it.", func(p *prometheusRenderer, name string, m *metricRow) (n int) {
		for i := range m.notes {
			n += p.series(true, name, m, m.notes[i].labels(), 1)
		}
		return n
	}},
	{"certificate_finding_since_timestamp_seconds", "When a difference between disk, servers and record was first seen.", func(p *prometheusRenderer, name string, m *metricRow) (n int) {
		for i := range m.notes {
			n += p.series(m.notes[i].since != 0, name, m, m.notes[i].labels(), m.notes[i].since)
		}
		return n
	}},
	{"crl_next_update_timestamp_seconds", "When a revocation list is out of date.", func(p *prometheusRenderer, name string, m *metricRow) int {
		return p.listSeries(m, name, func(l *metricList) (int64, bool) { return l.until, l.until != 0 })
	}},
	{"crl_this_update_timestamp_seconds", "When a revocation list was made.", func(p *prometheusRenderer, name string, m *metricRow) int {
		return p.listSeries(m, name, func(l *metricList) (int64, bool) { return l.from, l.from != 0 })
	}},
	{"crl_number", "The number of a revocation list, which grows with each one of its issuer.", func(p *prometheusRenderer, name string, m *metricRow) int {
		return p.listSeries(m, name, func(l *metricList) (int64, bool) { return int64(min(l.number, 1<<53)), l.numbered })
	}},
	{"place_unread", "1 for each place that could not be read, or not in full.", func(p *prometheusRenderer, name string, m *metricRow) int {
		if m.unread != "" && name != "" {
			p.scratch = append(append(append(m.appendPlace(p.scratch[:0]), `,reason="`...), m.unread...), '"')
		}
		return p.one(m.unread != "", name, p.scratch, 1)
	}},
}

// labels returns the labels of a finding beside those of its certificate.
func (n *metricNote) labels() string {
	return `,check="` + n.check + `",severity="` + n.severity.String() + `"`
}

// dated writes a series of a certificate.
func (p *prometheusRenderer) dated(m *metricRow, name string, value func(*cert.Certificate) int64) int {
	if m.cert == nil {
		return 0
	}
	return p.series(true, name, m, "", value(m.cert))
}

// series writes one series with the labels of a row and more, if it is there. It returns how many
// there are. Without a name it only counts.
func (p *prometheusRenderer) series(there bool, name string, m *metricRow, more string, value int64) int {
	if there && name != "" {
		p.scratch = append(m.appendLabels(p.scratch[:0]), more...)
	}
	return p.one(there, name, p.scratch, value)
}

// one is series for labels that are text already.
func (p *prometheusRenderer) one(there bool, name string, labels []byte, value int64) int {
	switch {
	case !there:
		return 0
	case name == "":
		return 1
	}
	_, _ = p.w.WriteString(metricPrefix) // Flush keeps the error
	_, _ = p.w.WriteString(name)
	_ = p.w.WriteByte('{')
	_, _ = p.w.Write(labels)
	_, _ = p.w.WriteString("} ")
	_, _ = p.w.Write(strconv.AppendInt(p.w.AvailableBuffer(), value, 10))
	_ = p.w.WriteByte('\n')
	return 1
}

// listSeries writes a series of a revocation list.
func (p *prometheusRenderer) listSeries(m *metricRow, name string, value func(*metricList) (int64, bool)) int {
	if m.list == nil {
		return 0
	}
	v, there := value(m.list)
	return p.one(there, name, []byte(m.list.labels), v)
}

// admit removes the rows for whose series there is no room, and returns how many series that are,
// as far as they were counted.
func (p *prometheusRenderer) admit() (cut int) {
	p.once()
	if p.MaxSeries == 0 {
		return 0
	}
	slices.SortStableFunc(p.kept, func(a, b metricRow) int { return cmp.Compare(b.rank, a.rank) })
	room, admitted := p.MaxSeries, p.kept[:0]
	for i := range p.kept {
		m := &p.kept[i]
		n := 0
		for _, f := range metricFamilies {
			n += f.write(p, "", m)
		}
		if n > room {
			cut += n
			continue
		}
		room -= n
		admitted = append(admitted, *m)
	}
	p.kept = admitted
	return cut + p.cut
}

// once removes what two rows would write both: lists and unread places have fewer labels than
// certificates.
func (p *prometheusRenderer) once() {
	seen := map[string]bool{}
	first := func(text string) bool {
		was := seen[text]
		seen[text] = true
		return !was
	}
	for i := range p.kept {
		m := &p.kept[i]
		if m.list != nil && !first("list "+m.list.labels) {
			m.list = nil
		}
		if m.unread != "" && !first(string(m.appendPlace([]byte(m.unread)))) {
			m.unread = ""
		}
	}
}

// family begins a metric. All of them are gauges.
func (p *prometheusRenderer) family(name, help string) {
	_, _ = fmt.Fprintf(p.w, "# HELP %[1]s%[2]s %[3]s\n# TYPE %[1]s%[2]s gauge\n", metricPrefix, name, help) // Flush keeps the error
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
	cut := p.admit()
	for _, f := range metricFamilies {
		p.family(f.name, f.help)
		for i := range p.kept {
			f.write(p, f.name, &p.kept[i])
		}
	}
	p.family("findings", "Findings by check and severity.")
	for _, f := range p.findings {
		_, _ = fmt.Fprintf(p.w, "%sfindings{check=\"%s\",severity=\"%s\"} %d\n", metricPrefix, f.Check, f.Severity, f.count)
	}
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
	if p.MaxSeries > 0 {
		single("series_cut", "Series for which there was no room.", int64(cut))
	}
	single("complete", "0 if the audit was interrupted.", complete)
	return p.w.Flush()
}

// countedFinding is a check with a severity, and how many findings have both.
type countedFinding struct {
	audit.Finding
	count int
}

// count counts a finding by its check and severity.
func (p *prometheusRenderer) count(f *audit.Finding) {
	same := func(c countedFinding) bool { return c.Check == f.Check && c.Severity == f.Severity }
	at := slices.IndexFunc(p.findings, same)
	if at < 0 {
		at, p.findings = len(p.findings), append(p.findings, countedFinding{Finding: *f})
	}
	p.findings[at].count++
}

// metricLabel escapes a text for the value of a label. Characters that do not print are
// escaped first, so that the label is also safe in a dashboard.
func metricLabel(s string) string {
	return labelEscapes.Replace(printable.Clean(s))
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// isTooLarge reports whether an input was above a limit of the audit.
func isTooLarge(err error) bool {
	_, is := errors.AsType[cert.TooLargeError](err)
	return is
}
