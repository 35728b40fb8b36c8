package dashboard

// The page of a certificate is for the moment when something went wrong with it: who has got it, by which
// proof, what happened to it since, and whether the record still says what was logged. The last is proved
// and not claimed: the entry is made again from the rows of today, and its hash has to be in the tree that
// the head of the log signs. Whoever distrusts the page can check the numbers that it shows.

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/ca/dashboard/internal/page"
	"github.com/artstore/artstore-pki/ca/dashboard/internal/query"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/record/reasons"
	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/printable"
)

// clip bounds a text that is not a cell.
func clip(s string) string { return printable.Shorten(printable.Cell(s), page.MaxText) }

// left says how far a moment is from another: "in 3h", "3h ago".
func left(from, to time.Time) string {
	d := humantime.Between(from, to)
	if d < 0 {
		return humantime.Short(d) + " ago"
	}
	return "in " + humantime.Short(d)
}

// certificatePage has all that the record knows of one certificate.
func (d *Dashboard) certificatePage(ctx context.Context, r request) (*page.Page, error) {
	text := r.PathValue("serial")
	serial, err := certs.ParseSerial(text[:min(len(text), maxName)]) // reading a number takes longer the longer it is
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotFound, err)
	}
	c, err := r.query.Certificate(ctx, serial)
	if err != nil {
		return nil, err
	}
	events, err := r.query.EventsOf(ctx, serial)
	if err != nil {
		return nil, err
	}
	members, more, err := r.query.Lineage(ctx, c.Lineage)
	if err != nil {
		return nil, err
	}
	proof, err := d.proof(ctx, events)
	if err != nil {
		return nil, err
	}
	lineage := memberTable(members, serial, more)
	p := &page.Page{Title: c.Service + " " + certs.HexSerial(serial), Rest: []string{lifeOf(&c, r.now)}, Class: classOf(&c, r.now), Sections: []page.Section{
		{ID: "who", Title: "Who has it, and by which right", Facts: rightOf(&c)},
		{ID: "what", Title: "The certificate", Facts: contentOf(&c)},
		{ID: "chain", Title: "Chain", Table: chainTable(&c)},
		{ID: "events", Title: "Events", Table: eventTable(events, "Events of this certificate")},
		{ID: "proof", Title: "Proof in the log", Facts: proof},
		{ID: "lineage", Title: "Lineage", Table: lineage},
	}}
	lineage.CSV = "/csv" + certificateAddress(serial)
	return p, nil
}

// classOf is the colour of a certificate at a moment.
func classOf(c *record.Certificate, now time.Time) string {
	switch {
	case c.Revocation != nil:
		return page.Crit
	case !now.Before(c.NotAfter):
		return page.None
	}
	return page.OK
}

// lifeOf says what a certificate is at a moment.
func lifeOf(c *record.Certificate, now time.Time) string {
	switch {
	case c.Revocation != nil:
		return fmt.Sprintf("Revoked at %s by %s (%s).", c.Revocation.RevokedAt.Format(time.DateTime), clip(c.Revocation.Caller), reasons.Name(c.Revocation.Reason))
	case !now.Before(c.NotAfter):
		return fmt.Sprintf("Ended %s.", left(now, c.NotAfter))
	}
	return fmt.Sprintf("Valid, ends %s.", left(now, c.NotAfter))
}

// rightOf says who asked for a certificate, and what let him have it.
func rightOf(c *record.Certificate) []page.Fact {
	right := map[string]string{
		kinds.Issued: "a first certificate: its caller has proved who it is", kinds.Renewed: "a renewal by the certificate before", kinds.Rekeyed: "a renewal with a new key, by the certificate before",
		kinds.SelfIssued: "the authority has issued it to itself", kinds.Entered: "not issued by this record: entered to be revoked",
	}[c.Kind]
	out := []page.Fact{
		{Name: "Service, whose profile is the rule", Cell: page.Cell{Text: c.Service, Link: address("/services", "service", c.Service)}},
		{Name: "Kind", Cell: page.Cell{Text: c.Kind, More: right}},
		{Name: "Asked for by", Cell: page.Text(c.Caller)},
		{Name: "Provisioner", Cell: page.Text(c.Provisioner)},
		{Name: "Issued", Cell: page.At(c.IssuedAt)},
	}
	if c.Previous != "" {
		out = append(out, page.Fact{Name: "Renews", Cell: page.Cell{Text: certs.HexSerial(c.Previous), Mono: true, Link: certificateAddress(c.Previous)}})
	}
	if !c.ProofUntil.IsZero() {
		out = append(out, page.Fact{Name: "End of the proof that it rests on", Cell: page.At(c.ProofUntil)})
	}
	if s := c.Served; s != nil {
		out = append(out, page.Fact{Name: "Served", Cell: page.Cell{Time: s.Since, More: fmt.Sprintf("at %s, %d servers", clip(s.Address), s.Servers)}})
	}
	if v := c.Revocation; v != nil && v.Note != "" {
		out = append(out, page.Fact{Name: "Note of the revocation", Cell: page.Text(v.Note)})
	}
	return out
}

// contentOf says what is in the certificate. What the record has in columns comes from there, so that also a
// certificate that cannot be parsed has a page.
func contentOf(c *record.Certificate) []page.Fact {
	sum := sha256.Sum256(c.DER)
	from, to := lifetime.RenewalWindow(c.NotBefore, c.NotAfter)
	out := []page.Fact{
		{Name: "Valid from", Cell: page.At(c.NotBefore)}, {Name: "Ends", Cell: page.At(c.NotAfter)},
		{Name: "Renews from", Cell: page.At(from.UTC())}, {Name: "Renews by", Cell: page.At(to.UTC())},
		{Name: "SHA-256", Cell: page.Cell{Text: hex.EncodeToString(sum[:]), Mono: true}},
		{Name: "SHA-256 of its key", Cell: page.Cell{Text: c.KeyHash, Mono: true}},
	}
	if leaf, err := x509.ParseCertificate(c.DER); err == nil {
		out = append(out, page.Fact{Name: "Subject", Cell: page.Text(leaf.Subject.String())}, page.Fact{Name: "Key", Cell: page.Text(leaf.PublicKeyAlgorithm.String())},
			page.Fact{Name: "Signature", Cell: page.Text(leaf.SignatureAlgorithm.String())})
	}
	for i, name := range c.Names {
		if i == pageRows {
			return append(out, page.Fact{Name: "Further names", Cell: page.Text(fmt.Sprint(len(c.Names) - i))})
		}
		out = append(out, page.Fact{Name: "Name", Cell: page.Text(name)})
	}
	return out
}

// chainTable has the intermediates that services send along.
func chainTable(c *record.Certificate) *page.Table {
	t := &page.Table{Caption: "The certificates above it, as services send them", Columns: []string{"Subject", "Issuer", "Ends", "SHA-256"}, Empty: "A root has signed it: there is none between."}
	chain, err := x509.ParseCertificates(c.Chain)
	if err != nil {
		t.Empty = "The chain in the record cannot be read."
		return t
	}
	for _, i := range chain {
		t.Rows = append(t.Rows, []page.Cell{page.Text(i.Subject.String()), page.Text(i.Issuer.String()), page.At(i.NotAfter), {Text: certs.Fingerprint(i), Mono: true}})
	}
	return t
}

// memberTable has the predecessors and successors of a certificate, and the certificate itself.
func memberTable(list []query.Member, serial string, more bool) *page.Table {
	t := &page.Table{Caption: "Certificates of the same lineage, the last to end first", Columns: []string{"Serial", "Kind", "Begins", "Ends", "State"}}
	if more {
		t.Caption += ": the newest ones"
	}
	for _, m := range list {
		state := page.Cell{}
		switch {
		case m.Revoked:
			state = page.Cell{Text: "revoked", Class: page.Crit}
		case m.Serial == serial:
			state = page.Cell{Text: "this one"}
		}
		t.Rows = append(t.Rows, []page.Cell{{Text: certs.HexSerial(m.Serial), Mono: true, Link: certificateAddress(m.Serial)}, page.Text(m.Kind), page.At(m.NotBefore), page.At(m.NotAfter), state})
	}
	return t
}

// eventTable shows events. They may be about a certificate.
func eventTable(list []query.Event, caption string) *page.Table {
	t := &page.Table{Caption: caption, Columns: []string{"Time", "Kind", "Service", "Rule", "Caller", "Detail", "Entry", "Serial"}, Empty: "There is none."}
	for _, e := range list {
		index := page.Cell{Text: "waits", Class: page.None}
		if e.Index >= 0 {
			index = page.Text(fmt.Sprint(e.Index))
		}
		serial := page.Cell{}
		if e.Serial != "" {
			serial = page.Cell{Text: certs.HexSerial(e.Serial), Mono: true, Link: certificateAddress(e.Serial)}
		}
		t.Rows = append(t.Rows, []page.Cell{page.At(e.At), page.Text(e.Kind), page.Text(e.Service), page.Text(e.Rule), page.Text(e.Caller), page.Text(e.Detail), index, serial})
	}
	return t
}

// proof proves that the event which tells of the issuing is in the log (RFC 6962 §2.1.1), by the rows that are
// stored now.
func (d *Dashboard) proof(ctx context.Context, events []query.Event) ([]page.Fact, error) {
	index := int64(-1)
	for _, e := range events {
		if kinds.OfCertificate(e.Kind) {
			index = e.Index
		}
	}
	head, _, err := d.head(ctx)
	if err != nil {
		return nil, err
	}
	if index < 0 || index >= head.Size {
		return []page.Fact{{Name: "Result", Cell: page.Cell{Text: "not in the log yet", Class: page.Info}}}, nil
	}
	// The row of the certificate is hashed again for this. If somebody has changed it, the proof fails.
	in, err := d.log.Entry(ctx, head, index)
	switch {
	case ctx.Err() != nil:
		return nil, err
	case err != nil:
		return []page.Fact{{Name: "Result", Cell: page.Cell{Text: "the proof fails", Class: page.Crit, More: err.Error()}}}, nil //nolint:nilerr // the page says it
	}
	out := []page.Fact{
		{Name: "Result", Cell: page.Cell{Text: "proved", Class: page.OK, More: "the rows of this certificate are those that were logged"}},
		{Name: "Entry", Cell: page.Text(fmt.Sprintf("%d of %d", index, head.Size))},
		{Name: "Leaf", Cell: page.Cell{Text: in.Leaf.String(), Mono: true}},
		{Name: "Root of the tree", Cell: page.Cell{Text: head.Root.String(), Mono: true}},
		{Name: "Head signed", Cell: page.At(head.Time)},
	}
	for i, h := range in.Proof {
		out = append(out, page.Fact{Name: fmt.Sprintf("Hash %d of the path", i), Cell: page.Cell{Text: h.String(), Mono: true}})
	}
	return out, nil
}

// head returns the newest head of the log after its signature was checked.
func (d *Dashboard) head(ctx context.Context) (head translog.Head, text []byte, err error) {
	if text, err = d.log.Head(ctx); err != nil {
		return head, nil, err
	}
	if text == nil {
		return head, nil, errors.New("the log of the record has no signed head")
	}
	head, err = d.verifier.Open(text)
	return head, text, err
}
