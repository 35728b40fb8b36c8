package audit

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/printable"
)

const metricPrefix = "artstore_audit_"

// WritePrometheus writes the report in the text format of Prometheus, as its node
// exporter takes it from a file. Dates are points in time, not what is left: a
// rule subtracts time(), and series that do not change cost nothing to keep.
func (r *Report) WritePrometheus(out io.Writer) error {
	w := bufio.NewWriter(out)
	family := func(name, help string) {
		_, _ = fmt.Fprintf(w, "# HELP %[1]s%[2]s %[3]s\n# TYPE %[1]s%[2]s gauge\n", metricPrefix, name, help) // Flush keeps the error
	}
	single := func(name, help string, value int64) {
		family(name, help)
		_, _ = fmt.Fprintf(w, "%s%s %d\n", metricPrefix, name, value)
	}
	series := r.series()
	for _, m := range []struct {
		name, help string
		value      func(*Row) int64
	}{
		{"not_before_timestamp_seconds", "When a certificate begins to be valid.", func(r *Row) int64 { return r.Cert.NotBefore.Unix() }},
		{"not_after_timestamp_seconds", "When a certificate ends.", func(r *Row) int64 { return r.Cert.NotAfter.Unix() }},
	} {
		family(m.name, m.help)
		for _, s := range series {
			_, _ = fmt.Fprintf(w, "%s%s{%s} %d\n", metricPrefix, m.name, s.labels, m.value(s.row))
		}
	}
	family("findings", "Findings by check and severity.")
	for _, f := range r.findings() {
		_, _ = fmt.Fprintf(w, "%sfindings{check=\"%s\",severity=\"%s\"} %d\n", metricPrefix, f.Check, f.Severity, f.count)
	}
	n := r.tally()
	single("certificates", "Certificates that were found.", int64(n.Certificates))
	single("unchecked", "Certificates and places that could not be checked.", int64(n.Unchecked))
	single("judged_timestamp_seconds", "When the report was complete.", r.Now.Unix())
	return w.Flush()
}

// series is one certificate in one place.
type series struct {
	labels string
	row    *Row
}

// series leaves out what would be there twice: one label set that comes again
// makes Prometheus refuse the whole page. Rows that are alike once they are
// printable show the same certificate, so nothing is lost.
func (r *Report) series() (out []series) {
	seen := map[string]bool{}
	for i := range r.Rows {
		row := &r.Rows[i]
		if row.Cert == nil {
			continue
		}
		labels := fmt.Sprintf(`kind="%s",place="%s",block="%d",name="%s",fingerprint_sha256="%s"`,
			label(row.Kind), label(row.Place), row.Block, label(name(row.Cert)), pemfile.Fingerprint(row.Cert))
		if !seen[labels] {
			seen[labels] = true
			out = append(out, series{labels, row})
		}
	}
	return out
}

// label escapes what is not printable first, so that a label is also safe where it is shown.
func label(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(printable.Clean(s))
}

type countedFinding struct {
	Finding
	count int
}

// findings counts them. Each check is there at its worst severity even with none:
// a series that comes and goes is hard to make a rule of.
func (r *Report) findings() (out []countedFinding) {
	for _, c := range Checks() {
		out = append(out, countedFinding{Finding: c})
	}
	for i := range r.Rows {
		for _, f := range r.Rows[i].Findings {
			same := func(c countedFinding) bool { return c.Check == f.Check && c.Severity == f.Severity }
			at := slices.IndexFunc(out, same)
			if at < 0 {
				at, out = len(out), append(out, countedFinding{Finding: f})
			}
			out[at].count++
		}
	}
	return out
}
