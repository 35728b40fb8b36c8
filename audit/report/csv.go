package report

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/internal/webpage"
)

// csvHead names the columns. docs/audit-report.md describes them.
var csvHead = []string{
	"state", "seconds_left", "not_before", "not_after", "name", "names", "kind", "place", "block", "also",
	"findings", "error", "issuer", "serial", "ca", "fingerprint_sha256",
	"key_algorithm", "key_bits", "signature_algorithm", "protocol", "key_exchange", "judged_at",
}

// csvRenderer writes a table for spreadsheets (RFC 4180) whose first line names the
// columns. Lists are joined by blanks. No cell can be read as a formula, and none is
// longer than a spreadsheet takes (32 767 characters in Excel).
type csvRenderer struct{ w *csv.Writer }

func newCSV(out io.Writer, _ Terminal) audit.Renderer {
	w := csv.NewWriter(out)
	w.UseCRLF = true
	_ = w.Write(csvHead) // Error keeps the error
	return &csvRenderer{w}
}

// Row implements [audit.Renderer].
func (c *csvRenderer) Row(r *audit.Row) error { return c.w.Write(rowForCSV(r)) }

// End implements [audit.Renderer].
func (c *csvRenderer) End(*audit.Summary) error {
	c.w.Flush()
	return c.w.Error()
}

// documentForCSV returns the dates of a document. A date that it does not have is "".
func documentForCSV(d *cert.Document, now time.Time) (left, from, to string) {
	if !d.From.IsZero() {
		from = d.From.UTC().Format(time.RFC3339)
	}
	if !d.Until.IsZero() {
		left, to = strconv.FormatInt(int64(humantime.Between(now, d.Until)), 10), d.Until.UTC().Format(time.RFC3339)
	}
	return left, from, to
}

// rowForCSV returns the cells of a row, in the order of csvHead. A column that does not apply
// to the row is an empty cell, so that each line has the same number of cells (RFC 4180 §2).
func rowForCSV(r *audit.Row) []string {
	var found []string
	for _, f := range r.Findings {
		found = append(found, f.Check)
	}
	reason := ""
	if r.Err != nil {
		reason = r.Err.Error()
	}
	c, left, from, to, authority, fingerprint, bits := r.Cert, "", "", "", "", "", ""
	if c == nil {
		c = &cert.Certificate{}
		if d := r.Document; d != nil {
			c.Name = d.Name
			left, from, to = documentForCSV(d, r.Judged)
		}
	} else {
		left = strconv.FormatInt(int64(humantime.Between(r.Judged, c.NotAfter)), 10)
		from, to = c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339)
		authority, fingerprint = strconv.FormatBool(c.IsCA), c.HexFingerprint()
		if c.Key.Bits > 0 {
			bits = strconv.Itoa(c.Key.Bits)
		}
	}
	return []string{
		r.State, left, from, to, webpage.CSVCell(printable.Shorten(c.Name, maxName)), webpage.CSVCell(shortenList(c.Names, " ")), r.Kind,
		webpage.CSVCell(shortenPlace(r.Place)), strconv.Itoa(r.Block), webpage.CSVCell(shortenList(r.Also, " ")),
		strings.Join(found, " "), webpage.CSVCell(printable.Shorten(reason, maxPhrase)), webpage.CSVCell(printable.Shorten(c.IssuerName, maxName)), c.Serial, authority, fingerprint,
		c.Key.Algorithm, bits, c.SignatureName, r.Protocol(), r.KeyExchange(), r.Judged.UTC().Format(time.RFC3339),
	}
}
