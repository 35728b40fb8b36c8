package audit

import (
	"bufio"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/internal/printable"
)

const metricPrefix = "artstore_audit_"

// asPrometheus writes the text format of Prometheus, as its node exporter takes
// it from a file. Dates are points in time, not what is left: a rule subtracts
// time(), and series that do not change cost nothing to keep. All series of one
// metric come together, so the second metric is kept: a line for each certificate.
type asPrometheus struct {
	w         *bufio.Writer
	notBefore []byte
	seen      map[uint64]bool // label sets
	seed      maphash.Seed
	findings  []countedFinding
}

func newPrometheus(out io.Writer, _ Terminal) Renderer {
	p := &asPrometheus{w: bufio.NewWriter(out), seen: map[uint64]bool{}, seed: maphash.MakeSeed()}
	// Each check is there at its worst severity even with none: a series that
	// comes and goes is hard to make a rule of.
	for _, c := range Checks() {
		p.findings = append(p.findings, countedFinding{Finding: c})
	}
	p.family("not_after_timestamp_seconds", "When a certificate ends.")
	return p
}

func (p *asPrometheus) family(name, help string) {
	_, _ = fmt.Fprintf(p.w, "# HELP %[1]s%[2]s %[3]s\n# TYPE %[1]s%[2]s gauge\n", metricPrefix, name, help) // Flush keeps the error
}

// Row implements [Renderer].
func (p *asPrometheus) Row(r *Row) error {
	for _, f := range r.Findings {
		p.count(f)
	}
	if r.Cert == nil {
		return nil
	}
	labels := fmt.Sprintf(`kind="%s",place="%s",block="%d",name="%s",fingerprint_sha256="%s"`,
		label(r.Kind), label(r.Place), r.Block, label(r.Cert.name), r.Cert.hexFingerprint())
	// One label set that comes again makes Prometheus refuse the whole page. Rows
	// that are alike once they are printable show the same certificate, so nothing is lost.
	id := maphash.String(p.seed, labels)
	if p.seen[id] {
		return nil
	}
	p.seen[id] = true
	p.notBefore = fmt.Appendf(p.notBefore, "%snot_before_timestamp_seconds{%s} %d\n", metricPrefix, labels, r.Cert.notBefore.Unix())
	_, err := fmt.Fprintf(p.w, "%snot_after_timestamp_seconds{%s} %d\n", metricPrefix, labels, r.Cert.notAfter.Unix())
	return err
}

// End implements [Renderer].
func (p *asPrometheus) End(s *Summary) error {
	p.family("not_before_timestamp_seconds", "When a certificate begins to be valid.")
	_, _ = p.w.Write(p.notBefore)
	p.family("findings", "Findings by check and severity.")
	for _, f := range p.findings {
		_, _ = fmt.Fprintf(p.w, "%sfindings{check=\"%s\",severity=\"%s\"} %d\n", metricPrefix, f.Check, f.Severity, f.count)
	}
	single := func(name, help string, value int64) {
		p.family(name, help)
		_, _ = fmt.Fprintf(p.w, "%s%s %d\n", metricPrefix, name, value)
	}
	single("certificates", "Certificates that were found.", int64(s.Certificates))
	single("unchecked", "Certificates and places that could not be checked.", int64(s.Unchecked))
	single("judged_timestamp_seconds", "When the report was complete.", s.Now.Unix())
	return p.w.Flush()
}

type countedFinding struct {
	Finding
	count int
}

func (p *asPrometheus) count(f Finding) {
	same := func(c countedFinding) bool { return c.Check == f.Check && c.Severity == f.Severity }
	at := slices.IndexFunc(p.findings, same)
	if at < 0 {
		at, p.findings = len(p.findings), append(p.findings, countedFinding{Finding: f})
	}
	p.findings[at].count++
}

// label escapes what is not printable first, so that a label is also safe where it is shown.
func label(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(printable.Clean(s))
}
