package report

import (
	"bufio"
	"encoding/pem"
	"fmt"
	"io"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/humantime"
)

// pemRenderer writes the certificates themselves, each once: a leaf and behind it what
// came with it, so that the chain of a server can be kept and compared. Lines
// between the blocks say what is in them; parsers skip those.
type pemRenderer struct {
	w       *bufio.Writer
	written map[cert.ID]bool
}

func newPEM(out io.Writer, _ Terminal) audit.Renderer {
	return &pemRenderer{bufio.NewWriter(out), map[cert.ID]bool{}}
}

// Row implements [Renderer].
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
		_, _ = fmt.Fprintf(p.w, "# %s, issued by %s, until %s\n", cell(shorten(c.Name, maxName)), cell(shorten(c.IssuerName, maxName)), humantime.Stamp(c.NotAfter)) // the last one keeps the error
		if err := pem.Encode(p.w, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); err != nil {
			return err
		}
	}
	return nil
}

// End implements [Renderer].
func (p *pemRenderer) End(*audit.Summary) error { return p.w.Flush() }
