package audit

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/artstore/artstore-pki/internal/lifetime"
)

// schemaVersion changes when a field changes its meaning or goes away.
const schemaVersion = 1

type jsonRow struct {
	State    string    `json:"state"`
	Kind     string    `json:"kind"`
	Place    string    `json:"place"`
	Block    int       `json:"block,omitempty"`
	Also     []string  `json:"also,omitempty"`
	Error    string    `json:"error,omitempty"`
	Findings []Finding `json:"findings"`
	*jsonCert
	*jsonDocument
}

type jsonCert struct {
	Name        string    `json:"name"`
	Names       []string  `json:"names"`
	Serial      string    `json:"serial"`
	Issuer      string    `json:"issuer"`
	CA          bool      `json:"ca"`
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	SecondsLeft int64     `json:"seconds_left"`
	RenewsFrom  time.Time `json:"renews_from,omitzero"`
	RenewsTo    time.Time `json:"renews_to,omitzero"`
	Fingerprint string    `json:"fingerprint_sha256"`
	Protocol    string    `json:"protocol,omitempty"`
	KeyExchange string    `json:"key_exchange,omitempty"`
}

// asJSON writes the report for programs, a row on each line. What is known at the
// end only comes last. Times are RFC 3339 in UTC.
type asJSON struct {
	w     *bufio.Writer
	lines bool // NDJSON: rows alone, each with those fields of the report that it needs
	rows  int
}

func newJSON(out io.Writer, _ int) Renderer   { return &asJSON{w: bufio.NewWriter(out)} }
func newNDJSON(out io.Writer, _ int) Renderer { return &asJSON{w: bufio.NewWriter(out), lines: true} }

type ndjsonRow struct {
	SchemaVersion int       `json:"schema_version"`
	JudgedAt      time.Time `json:"judged_at"`
	jsonRow
}

// Row implements [Renderer].
func (j *asJSON) Row(r *Row) error {
	var line any = r.forJSON()
	if j.lines {
		line = ndjsonRow{schemaVersion, r.Judged.UTC(), r.forJSON()}
	}
	text, err := json.Marshal(line)
	if err != nil {
		return err
	}
	between := ",\n"
	switch {
	case j.lines:
		between = ""
		text = append(text, '\n')
	case j.rows == 0:
		between = j.head()
	}
	j.rows++
	_, _ = j.w.WriteString(between) // the last Write and Flush keep the error
	_, err = j.w.Write(text)
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
	_, _ = fmt.Fprintf(j.w, "\n],%s\n", end[1:])
	return j.w.Flush()
}

func (r *Row) forJSON() jsonRow {
	out := jsonRow{State: r.State, Kind: r.Kind, Place: r.Place, Block: r.Block, Also: r.Also, Findings: r.Findings}
	if out.Findings == nil {
		out.Findings = []Finding{}
	}
	if r.Err != nil {
		out.Error = r.Err.Error()
	}
	if r.doc != nil {
		out.jsonDocument = r.doc.forJSON()
	}
	c := r.Cert
	if c == nil {
		return out
	}
	out.jsonCert = &jsonCert{
		Name: c.name, Names: c.names, Serial: c.serial, Issuer: c.issuerName, CA: c.isCA,
		NotBefore: c.notBefore.UTC(), NotAfter: c.notAfter.UTC(), SecondsLeft: int64(c.notAfter.Sub(r.Judged).Seconds()),
		Fingerprint: c.hexFingerprint(),
	}
	if out.Names == nil {
		out.Names = []string{}
	}
	if r.renews() {
		from, to := lifetime.RenewalWindow(c.notBefore, c.notAfter)
		out.RenewsFrom, out.RenewsTo = from.UTC(), to.UTC()
	}
	if r.TLS != nil {
		out.Protocol, out.KeyExchange = protocol(r.TLS), keyExchange(r.TLS)
	}
	return out
}

func protocol(s *tls.ConnectionState) string { return tls.VersionName(s.Version) }

// keyExchange is "" when the handshake ended before one was agreed.
func keyExchange(s *tls.ConnectionState) string {
	if s.CurveID == 0 {
		return ""
	}
	return s.CurveID.String()
}
