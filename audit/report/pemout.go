package report

import (
	"bufio"
	"encoding/pem"
	"fmt"
	"io"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/printable"
)

// pemRenderer writes the certificates themselves, each once: a leaf, and behind it the
// rest of its chain, so that the chain of a server can be stored and compared. Lines
// between the blocks say what is in them. Parsers must not fail on text
// between blocks (RFC 7468 §2).
type pemRenderer struct {
	w       *bufio.Writer
	written map[cert.ID]bool
}

func newPEM(out io.Writer, _ Terminal) audit.Renderer {
	return &pemRenderer{bufio.NewWriter(out), map[cert.ID]bool{}}
}

// Row implements [audit.Renderer].
func (p *pemRenderer) Row(r *audit.Row) error {
	if r.Cert == nil {
		return nil
	}
	for _, c := range append([]*cert.Certificate{r.Cert}, r.Chain...) {
		id := c.ID()
		if p.written[id] {
			continue
		}
		p.written[id] = true
		_, _ = fmt.Fprintf(p.w, "# %s, issued by %s, until %s\n", printable.Cell(printable.Shorten(c.Name, maxName)), printable.Cell(printable.Shorten(c.IssuerName, maxName)), humantime.Stamp(c.NotAfter)) // the last one keeps the error
		if err := pem.Encode(p.w, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); err != nil {
			return err
		}
	}
	return nil
}

// End implements [audit.Renderer].
func (p *pemRenderer) End(*audit.Summary) error { return p.w.Flush() }
