package audit

import (
	"bufio"
	"encoding/pem"
	"fmt"
	"io"
)

// asPEM writes the certificates themselves, each once: a leaf and behind it what
// came with it, so that the chain of a server can be kept and compared. Lines
// between the blocks say what is in them; parsers skip those.
type asPEM struct {
	w       *bufio.Writer
	written map[certID]bool
}

func newPEM(out io.Writer, _ Terminal) Renderer {
	return &asPEM{bufio.NewWriter(out), map[certID]bool{}}
}

// Row implements [Renderer].
func (p *asPEM) Row(r *Row) error {
	if r.Cert == nil {
		return nil
	}
	for _, c := range append([]*Certificate{r.Cert}, r.Chain...) {
		id := c.id()
		if p.written[id] {
			continue
		}
		p.written[id] = true
		_, _ = fmt.Fprintf(p.w, "# %s, issued by %s, until %s\n", cell(c.name), cell(c.issuerName), at(c.notAfter)) // the last one keeps the error
		if err := pem.Encode(p.w, &pem.Block{Type: "CERTIFICATE", Bytes: c.raw}); err != nil {
			return err
		}
	}
	return nil
}

// End implements [Renderer].
func (p *asPEM) End(*Summary) error { return p.w.Flush() }
