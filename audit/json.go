package audit

import (
	"bufio"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/printable"
)

// schemaVersion changes when a field changes its meaning or goes away.
const schemaVersion = 1

// asJSON writes the report for programs, a row on each line. What is known at the
// end only comes last. Times are RFC 3339 in UTC.
type asJSON struct {
	w     *bufio.Writer
	lines bool // NDJSON: rows alone, each with those fields of the report that it needs
	rows  int
	buf   []byte // one row
}

func newJSON(out io.Writer, _ Terminal) Renderer { return &asJSON{w: bufio.NewWriter(out)} }
func newNDJSON(out io.Writer, _ Terminal) Renderer {
	return &asJSON{w: bufio.NewWriter(out), lines: true}
}

// Row implements [Renderer].
func (j *asJSON) Row(r *Row) error {
	b := j.buf[:0]
	switch {
	case j.lines:
		b = append(b, `{"schema_version":`...)
		b = strconv.AppendInt(b, schemaVersion, 10)
		b = jsonTime(b, `,"judged_at":`, r.Judged)
		b = append(b, ',')
	case j.rows == 0:
		b = append(append(b, j.head()...), '{')
	default:
		b = append(b, ",\n{"...)
	}
	b = append(r.appendJSON(b), '}')
	if j.lines {
		b = append(b, '\n')
	}
	j.rows++
	j.buf = b
	_, err := j.w.Write(b)
	return err
}

func (j *asJSON) head() string {
	return fmt.Sprintf("{\"schema_version\":%d,\"rows\":[\n", schemaVersion)
}

// End implements [Renderer].
func (j *asJSON) End(s *Summary) error {
	if j.lines {
		return j.w.Flush()
	}
	if j.rows == 0 {
		_, _ = j.w.WriteString(j.head())
	}
	end, err := json.Marshal(struct {
		JudgedAt time.Time `json:"judged_at"`
		Summary  *Summary  `json:"summary"`
	}{s.Now.UTC(), s})
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(j.w, "\n],%s\n", plainJSON(nil, end[1:]))
	return j.w.Flush()
}

// appendJSON writes the members of a row, as docs/audit-report.md has them.
func (r *Row) appendJSON(b []byte) []byte {
	b = jsonText(b, `"state":`, r.State)
	b = jsonText(b, `,"kind":`, r.Kind)
	b = jsonText(b, `,"place":`, r.Place)
	if r.Block != 0 {
		b = strconv.AppendInt(append(b, `,"block":`...), int64(r.Block), 10)
	}
	if len(r.Also) > 0 {
		b = jsonList(b, `,"also":`, r.Also)
	}
	if r.Err != nil {
		b = jsonText(b, `,"error":`, r.Err.Error())
	}
	if r.doc != nil {
		b = r.doc.appendJSON(b)
	}
	b = append(b, `,"findings":[`...)
	for i, f := range r.Findings {
		if i > 0 {
			b = append(b, ',')
		}
		b = jsonText(b, `{"check":`, f.Check)
		b = jsonText(b, `,"severity":`, f.Severity.String())
		b = jsonText(b, `,"text":`, f.Text)
		b = jsonText(b, `,"remedy":`, f.Remedy)
		b = append(jsonText(b, `,"cites":`, f.Cites), '}')
	}
	b = append(b, ']')
	if len(r.Accepted) > 0 {
		b = jsonList(b, `,"accepted":`, r.Accepted)
	}
	if r.Cert == nil {
		return b
	}
	return r.appendCert(b)
}

func (r *Row) appendCert(b []byte) []byte {
	c := r.Cert
	b = jsonText(b, `,"name":`, c.name)
	b = jsonList(b, `,"names":`, c.names)
	b = jsonText(b, `,"serial":`, c.serial)
	b = jsonText(b, `,"issuer":`, c.issuerName)
	b = strconv.AppendBool(append(b, `,"ca":`...), c.isCA)
	b = jsonTime(b, `,"not_before":`, c.notBefore)
	b = jsonTime(b, `,"not_after":`, c.notAfter)
	b = strconv.AppendInt(append(b, `,"seconds_left":`...), int64(c.notAfter.Sub(r.Judged).Seconds()), 10)
	if r.renews() {
		from, to := lifetime.RenewalWindow(c.notBefore, c.notAfter)
		b = jsonTime(jsonTime(b, `,"renews_from":`, from), `,"renews_to":`, to)
	}
	b = append(hex.AppendEncode(append(b, `,"fingerprint_sha256":"`...), c.fingerprint[:]), '"')
	if r.TLS == nil {
		return b
	}
	if p := protocol(r.TLS); p != "" {
		b = jsonText(b, `,"protocol":`, p)
	}
	if k := keyExchange(r.TLS); k != "" {
		b = jsonText(b, `,"key_exchange":`, k)
	}
	return b
}

func jsonTime(b []byte, member string, t time.Time) []byte {
	return append(t.UTC().AppendFormat(append(append(b, member...), '"'), time.RFC3339Nano), '"')
}

func jsonList(b []byte, member string, list []string) []byte {
	b = append(append(b, member...), '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = jsonText(b, "", s)
	}
	return append(b, ']')
}

// jsonText writes a string. Nearly all of them need no escape; the others are
// written by encoding/json, which also escapes what HTML would interpret.
func jsonText(b []byte, member, s string) []byte {
	b = append(b, member...)
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			text, _ := json.Marshal(s) // a string does not fail
			return plainJSON(b, text)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// plainJSON appends JSON with those characters escaped that are allowed there and
// that a terminal, or an eye, would take for something else.
func plainJSON(b, text []byte) []byte {
	for _, r := range string(text) {
		switch {
		case r == unicode.ReplacementChar || !printable.Hidden(r):
			b = utf8.AppendRune(b, r)
		case r <= 0xffff:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, high, low)
		}
	}
	return b
}

func protocol(s *tls.ConnectionState) string { return tls.VersionName(s.Version) }

// keyExchange is "" when the handshake ended before one was agreed.
func keyExchange(s *tls.ConnectionState) string {
	if s.CurveID == 0 {
		return ""
	}
	return s.CurveID.String()
}
