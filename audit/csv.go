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
	var found []string
	for _, f := range r.Findings {
		found = append(found, f.Check)
	}
	reason := ""
	if r.Err != nil {
		reason = r.Err.Error()
	}
	c, left, from, to, authority, fingerprint := r.Cert, "", "", "", "", ""
	if c == nil {
		c = &Certificate{}
	} else {
		left = strconv.FormatInt(int64(c.notAfter.Sub(r.Judged).Seconds()), 10)
		from, to = c.notBefore.UTC().Format(time.RFC3339), c.notAfter.UTC().Format(time.RFC3339)
		authority, fingerprint = strconv.FormatBool(c.isCA), c.hexFingerprint()
	}
	return []string{
		r.State, left, from, to, text(c.name), text(c.names...), r.Kind, text(r.Place), strconv.Itoa(r.Block), text(r.Also...),
		strings.Join(found, " "), text(reason), text(c.issuerName), c.serial, authority, fingerprint,
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
