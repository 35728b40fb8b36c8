package audit

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/printable"
)

var csvHead = []string{
	"state", "seconds_left", "not_before", "not_after", "name", "names", "kind", "place", "block", "also",
	"findings", "error", "issuer", "serial", "ca", "fingerprint_sha256",
}

// asCSV writes a table for spreadsheets (RFC 4180), whose first line names the
// columns. Lists are joined by blanks. No cell is a formula.
type asCSV struct{ w *csv.Writer }

func newCSV(out io.Writer, _ Terminal) Renderer {
	w := csv.NewWriter(out)
	w.UseCRLF = true
	_ = w.Write(csvHead) // Error keeps the error
	return &asCSV{w}
}

// Row implements [Renderer].
func (c *asCSV) Row(r *Row) error { return c.w.Write(r.forCSV()) }

// End implements [Renderer].
func (c *asCSV) End(*Summary) error {
	c.w.Flush()
	return c.w.Error()
}

func (r *Row) forCSV() []string {
	row := r.forJSON()
	var found []string
	for _, f := range row.Findings {
		found = append(found, f.Check)
	}
	c, left, from, to, authority := row.jsonCert, "", "", "", ""
	if c == nil {
		c = &jsonCert{}
	} else {
		left, from, to = strconv.FormatInt(c.SecondsLeft, 10), c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339)
		authority = strconv.FormatBool(c.CA)
	}
	return []string{
		row.State, left, from, to, text(c.Name), text(c.Names...), row.Kind, text(row.Place), strconv.Itoa(row.Block), text(row.Also...),
		strings.Join(found, " "), text(row.Error), text(c.Issuer), c.Serial, authority, c.Fingerprint,
	}
}

// text is a cell with what a stranger may have written. Spreadsheets take some
// beginnings for a formula and run it; behind an apostrophe they do not.
func text(list ...string) string {
	cell := printable.Clean(strings.Join(list, " "))
	if cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r") {
		return "'" + cell
	}
	return cell
}
