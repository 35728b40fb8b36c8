package audit

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"time"

	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// schemaVersion changes when a field changes its meaning or goes away.
const schemaVersion = 1

type jsonReport struct {
	SchemaVersion int       `json:"schema_version"`
	JudgedAt      time.Time `json:"judged_at"`
	Summary       tally     `json:"summary"`
	Rows          []jsonRow `json:"rows"`
}

type jsonRow struct {
	State    string    `json:"state"`
	Kind     string    `json:"kind"`
	Place    string    `json:"place"`
	Block    int       `json:"block,omitempty"`
	Also     []string  `json:"also,omitempty"`
	Error    string    `json:"error,omitempty"`
	Findings []Finding `json:"findings"`
	*jsonCert
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

// WriteJSON writes the report for programs. Times are RFC 3339 in UTC.
func (r *Report) WriteJSON(w io.Writer) error {
	out := jsonReport{SchemaVersion: schemaVersion, JudgedAt: r.Now.UTC(), Summary: r.tally(), Rows: make([]jsonRow, len(r.Rows))}
	for i := range r.Rows {
		out.Rows[i] = r.Rows[i].forJSON()
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

func (r *Row) forJSON() jsonRow {
	out := jsonRow{State: r.State, Kind: r.Kind, Place: r.Place, Block: r.Block, Also: r.Also, Findings: r.Findings}
	if out.Findings == nil {
		out.Findings = []Finding{}
	}
	if r.Err != nil {
		out.Error = r.Err.Error()
	}
	c := r.Cert
	if c == nil {
		return out
	}
	out.jsonCert = &jsonCert{
		Name: name(c), Names: pemfile.Names(c), Serial: pemfile.Serial(c), Issuer: issuerName(c), CA: c.IsCA,
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), SecondsLeft: int64(c.NotAfter.Sub(r.Judged).Seconds()),
		Fingerprint: pemfile.Fingerprint(c),
	}
	if out.Names == nil {
		out.Names = []string{}
	}
	if r.renews() {
		from, to := lifetime.RenewalWindow(c.NotBefore, c.NotAfter)
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
