package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/printable"
)

// schemaVersion changes when a field changes its meaning or goes away.
const schemaVersion = 2

// jsonRenderer writes the report for programs, a row on each line. What is known at the
// endOf only comes last. Times are RFC 3339 in UTC.
type jsonRenderer struct {
	w     *bufio.Writer
	lines bool // NDJSON: rows alone, each with those fields of the report that it needs
	rows  int
	row   bytes.Buffer // the last one
}

func newJSON(out io.Writer, _ Terminal) audit.Renderer { return &jsonRenderer{w: bufio.NewWriter(out)} }
func newNDJSON(out io.Writer, _ Terminal) audit.Renderer {
	return &jsonRenderer{w: bufio.NewWriter(out), lines: true}
}

// jsonRow are the members of a row, as docs/audit-report.md has them.
type jsonRow struct {
	Schema   int       `json:"schema_version,omitzero"` // of NDJSON, like the next
	JudgedAt time.Time `json:"judged_at,omitzero"`
	State    string    `json:"state"`
	Kind     string    `json:"kind"`
	Place    string    `json:"place"`
	Block    int       `json:"block,omitempty"`
	Also     []string  `json:"also,omitempty"`
	Error    string    `json:"error,omitempty"`
	*jsonDocument
	Findings []audit.Finding `json:"findings"`
	Accepted []string        `json:"accepted,omitempty"`
	*jsonCertificate
}

type jsonCertificate struct {
	Name        string    `json:"name"`
	Names       []string  `json:"names"`
	Serial      string    `json:"serial"`
	Issuer      string    `json:"issuer"`
	CA          bool      `json:"ca"`
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	SecondsLeft int64     `json:"seconds_left"`
	ChainEnds   time.Time `json:"chain_ends,omitzero"` // of the chain that was verified, the leaf included
	RenewsFrom  time.Time `json:"renews_from,omitzero"`
	RenewsTo    time.Time `json:"renews_to,omitzero"`
	Fingerprint string    `json:"fingerprint_sha256"`
	Key         string    `json:"key_algorithm,omitempty"`
	KeyBits     int       `json:"key_bits,omitempty"`
	Signature   string    `json:"signature_algorithm,omitempty"`
	Protocol    string    `json:"protocol,omitempty"`
	KeyExchange string    `json:"key_exchange,omitempty"`
}

// jsonDocument are the members that a row has in place of those of a certificate:
// the same details for programs, as text.
type jsonDocument struct {
	What       string            `json:"what"`
	Name       string            `json:"document_name"`
	ValidFrom  time.Time         `json:"valid_from,omitzero"`
	ValidUntil time.Time         `json:"valid_until,omitzero"`
	Details    map[string]string `json:"details"`
}

// jsonEnd are the members behind the rows, and the last line of NDJSON.
type jsonEnd struct {
	Schema   int            `json:"schema_version,omitzero"` // of NDJSON
	JudgedAt time.Time      `json:"judged_at"`
	MadeAt   time.Time      `json:"made_at,omitzero"`
	Forecast bool           `json:"forecast,omitempty"`
	Audited  audit.About    `json:"audited"`
	Summary  *audit.Summary `json:"summary"`
	Complete bool           `json:"complete"`
}

// Row implements [Renderer].
func (j *jsonRenderer) Row(r *audit.Row) error {
	row := rowForJSON(r)
	before := ",\n"
	switch {
	case j.lines:
		row.Schema, row.JudgedAt, before = schemaVersion, r.Judged.UTC(), ""
	case j.rows == 0:
		before = jsonHead
	}
	j.row.Reset()
	if err := json.NewEncoder(&j.row).Encode(row); err != nil {
		return err
	}
	j.rows++
	text := j.row.Bytes()
	_, _ = j.w.WriteString(before) // Write keeps the error
	_, err := j.w.Write(plainJSON(text[:len(text)-1]))
	if j.lines {
		err = j.w.WriteByte('\n')
	}
	return err
}

var jsonHead = fmt.Sprintf("{\"schema_version\":%d,\"rows\":[\n", schemaVersion)

// End implements [Renderer].
func (j *jsonRenderer) End(s *audit.Summary) error {
	last := jsonEnd{
		JudgedAt: s.Now.UTC(), MadeAt: s.Made.UTC(), Forecast: s.Forecast(), Audited: s.About, Summary: s, Complete: s.Complete,
	}
	if j.lines {
		last.Schema = schemaVersion
	} else if j.rows == 0 {
		_, _ = j.w.WriteString(jsonHead)
	}
	text, err := json.Marshal(last)
	if err != nil {
		return err
	}
	text = plainJSON(text)
	if !j.lines {
		_, _ = j.w.WriteString("\n],")
		text = text[1:]
	}
	_, _ = j.w.Write(append(text, '\n'))
	return j.w.Flush()
}

func rowForJSON(r *audit.Row) *jsonRow {
	out := &jsonRow{
		State: r.State, Kind: r.Kind, Place: r.Place, Block: r.Block, Also: r.Also,
		Findings: append([]audit.Finding{}, r.Findings...), Accepted: r.Accepted, // [], never null
	}
	if r.Err != nil {
		out.Error = r.Err.Error()
	}
	if r.Document != nil {
		out.jsonDocument = documentForJSON(r.Document)
	}
	c := r.Cert
	if c == nil {
		return out
	}
	out.jsonCertificate = &jsonCertificate{
		Name: c.Name, Names: append([]string{}, c.Names...), Serial: c.Serial, Issuer: c.IssuerName, CA: c.IsCA,
		NotBefore: jsonTime(c.NotBefore), NotAfter: jsonTime(c.NotAfter), SecondsLeft: int64(humantime.Between(r.Judged, c.NotAfter)),
		Fingerprint: c.HexFingerprint(), Key: c.Key.Algorithm, KeyBits: c.Key.Bits, Signature: c.SignatureName,
	}
	out.ChainEnds = r.ChainEnds()
	if r.AutoRenewed() {
		from, to := lifetime.RenewalWindow(c.NotBefore, c.NotAfter)
		out.RenewsFrom, out.RenewsTo = jsonTime(from), jsonTime(to)
	}
	out.Protocol, out.KeyExchange = r.Protocol(), r.KeyExchange()
	return out
}

// jsonTime is a time that RFC 3339 can write: with an offset behind its last hour,
// a date of a certificate is in the year 10000.
func jsonTime(t time.Time) time.Time {
	switch t = t.UTC(); {
	case t.Year() > 9999:
		return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	case t.Year() < 0:
		return time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return t
}

// plainJSON escapes those characters that JSON allows and that a terminal, or an
// eye, would take for something else. What HTML would interpret, encoding/json has escaped.
func plainJSON(text []byte) []byte {
	first := 0 // that may have to be escaped; few rows have one
	for first < len(text) && text[first] < 0x7f {
		first++
	}
	if first == len(text) {
		return text
	}
	out := bytes.Clone(text[:first])
	for _, r := range string(text[first:]) {
		switch {
		case r == unicode.ReplacementChar || !printable.Hidden(r):
			out = utf8.AppendRune(out, r)
		case r <= 0xffff:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		}
	}
	return out
}

func documentForJSON(d *cert.Document) *jsonDocument {
	out := &jsonDocument{What: d.What, Name: d.Name, ValidFrom: jsonTime(d.From), ValidUntil: jsonTime(d.Until), Details: map[string]string{}}
	for _, one := range d.Details {
		out.Details[one.Label] = one.Text
	}
	return out
}
