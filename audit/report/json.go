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

// schemaVersion is raised when a field changes its meaning or is removed. A new field does
// not raise it. Package compare refuses every other version.
const schemaVersion = 2

// jsonRenderer writes the report for programs, one row on each line. It keeps no rows: the
// summary is written behind them. Times have the form of RFC 3339, in UTC.
type jsonRenderer struct {
	w *bufio.Writer
	// lines selects NDJSON: each line is a JSON value of its own, with those fields of the
	// report that a reader of one row needs.
	lines bool
	rows  int
	// row holds the text of the last row, to reuse the memory.
	row bytes.Buffer
}

func newJSON(out io.Writer, _ Terminal) audit.Renderer { return &jsonRenderer{w: bufio.NewWriter(out)} }
func newNDJSON(out io.Writer, _ Terminal) audit.Renderer {
	return &jsonRenderer{w: bufio.NewWriter(out), lines: true}
}

// jsonRow has the members of a row; docs/audit-report.md describes them. Schema and
// JudgedAt are there in NDJSON only.
type jsonRow struct {
	Schema   int       `json:"schema_version,omitzero"` // of NDJSON, like the next
	JudgedAt time.Time `json:"judged_at,omitzero"`
	State    string    `json:"state"`
	Kind     string    `json:"kind"`
	Place    string    `json:"place"`
	Block    int       `json:"block,omitempty"`
	Also     []string  `json:"also,omitempty"`
	Error    string    `json:"error,omitempty"`
	// StaleSince is when the place was last read, if it cannot be read now.
	StaleSince time.Time `json:"stale_since,omitzero"`
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
	// ChainEnds is the earliest end in the chain that was verified, with the leaf.
	ChainEnds   time.Time `json:"chain_ends,omitzero"`
	RenewsFrom  time.Time `json:"renews_from,omitzero"`
	RenewsTo    time.Time `json:"renews_to,omitzero"`
	Fingerprint string    `json:"fingerprint_sha256"`
	Key         string    `json:"key_algorithm,omitempty"`
	KeyBits     int       `json:"key_bits,omitempty"`
	Signature   string    `json:"signature_algorithm,omitempty"`
	Protocol    string    `json:"protocol,omitempty"`
	KeyExchange string    `json:"key_exchange,omitempty"`
}

// jsonDocument has the members of a row that is no certificate. Details are those that
// inspect prints, as text.
type jsonDocument struct {
	What       string            `json:"what"`
	Name       string            `json:"document_name"`
	ValidFrom  time.Time         `json:"valid_from,omitzero"`
	ValidUntil time.Time         `json:"valid_until,omitzero"`
	Details    map[string]string `json:"details"`
}

// jsonEnd has the members behind the rows. In NDJSON it is the last line, and has a Schema.
type jsonEnd struct {
	Schema   int            `json:"schema_version,omitzero"` // of NDJSON
	JudgedAt time.Time      `json:"judged_at"`
	MadeAt   time.Time      `json:"made_at,omitzero"`
	Forecast bool           `json:"forecast,omitempty"`
	Audited  audit.About    `json:"audited"`
	Summary  *audit.Summary `json:"summary"`
	Complete bool           `json:"complete"`
}

// Row implements [audit.Renderer].
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

// jsonHead begins a report that is one JSON value.
var jsonHead = fmt.Sprintf("{\"schema_version\":%d,\"rows\":[\n", schemaVersion)

// End implements [audit.Renderer].
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

// rowForJSON copies the lists, because encoding/json writes a nil slice as null, and
// programs that loop over a list fail on null.
func rowForJSON(r *audit.Row) *jsonRow {
	out := &jsonRow{
		State: r.State, Kind: r.Kind, Place: r.Place, Block: r.Block, Also: r.Also,
		Findings: append([]audit.Finding{}, r.Findings...), Accepted: r.Accepted, // [], never null
		StaleSince: jsonTime(r.Stale),
	}
	if r.Stale.IsZero() {
		out.StaleSince = time.Time{}
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

// jsonTime returns the nearest time that RFC 3339 can write, which has years of four
// digits. A certificate may end in the last hour of 9999 west of Greenwich, and that is
// the year 10000 in UTC; encoding/json fails on it.
func jsonTime(t time.Time) time.Time {
	switch t = t.UTC(); {
	case t.Year() > 9999:
		return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	case t.Year() < 0:
		return time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return t
}

// plainJSON escapes characters that JSON allows and that mislead a terminal or a reader,
// such as those that change the direction of text. encoding/json has escaped those that
// HTML interprets.
func plainJSON(text []byte) []byte {
	// first is the index of the first byte that may have to be escaped; few rows have one.
	first := 0
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

// documentForJSON returns the members of a document.
func documentForJSON(d *cert.Document) *jsonDocument {
	out := &jsonDocument{What: d.What, Name: d.Name, ValidFrom: jsonTime(d.From), ValidUntil: jsonTime(d.Until), Details: map[string]string{}}
	for _, one := range d.Details {
		out.Details[one.Label] = one.Text
	}
	return out
}
