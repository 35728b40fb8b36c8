package dashboard

// The page of the roots says how far a change of them is, and for whom one must wait. It has the answers of
// "root status" without its price: that command reads every holder, and this page only those that may
// not have adopted a root. What decides about them is the same code.
//
// CA certificates come from the record, which all replicas share, and otherwise from the state directory.
// The row of the record also has the key, sealed. It is never read here.

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/ca/dashboard/internal/page"
	"github.com/artstore/artstore-pki/ca/dashboard/internal/query"
	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/crl"
	"github.com/artstore/artstore-pki/ca/internal/trust"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// versions are the documents of the trust, the newest first.
type versions struct {
	newest int64
	all    []*trust.Document
}

// documents returns the trust in effect, and all versions that are kept, the newest first. A record
// without versions has that of the state directory. Each document has a signature to check, so they are
// kept until there is a newer one: a version never changes.
func (d *Dashboard) documents(ctx context.Context) (current *trust.Document, all []*trust.Document, err error) {
	newest, err := d.trust.Newest(ctx)
	if err != nil {
		return nil, nil, err
	}
	if known := d.versions.Load(); known != nil && newest.Number != 0 && known.newest == newest.Number {
		return known.all[0], known.all, nil
	}
	list, err := d.trust.Versions(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, v := range list {
		doc, err := trust.Open(d.verifier, v.Document)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, doc)
	}
	if len(all) == 0 {
		doc, err := d.files.ReadDocument()
		if err != nil {
			return nil, nil, err
		}
		return doc, []*trust.Document{doc}, nil
	}
	d.versions.Store(&versions{list[0].Number, all})
	return all[0], all, nil
}

// authorities returns the CA certificates of a document by fingerprint: from the record, and otherwise
// from the state directory.
func (d *Dashboard) authorities(ctx context.Context, doc *trust.Document) (map[string]*x509.Certificate, error) {
	found := map[string]*x509.Certificate{}
	for _, fp := range slices.Concat(doc.Roots, doc.Intermediates) {
		c, err := d.query.Authority(ctx, fp)
		if errors.Is(err, record.ErrNotFound) {
			roots, intermediates, fileErr := d.files.Certificates(&trust.Document{Roots: []string{fp}})
			if err = fileErr; err == nil {
				c = slices.Concat(roots, intermediates)[0]
			}
		}
		if err != nil {
			return nil, err
		}
		found[fp] = c
	}
	return found, nil
}

// spent returns the share of its life that a certificate has used, at a moment.
func spent(c *x509.Certificate, now time.Time) float64 {
	return float64(now.Sub(c.NotBefore)) / float64(c.NotAfter.Sub(c.NotBefore))
}

// Shares of the life of a CA certificate from which its runway is short.
const (
	spentWarn = 0.9
	spentCrit = 1
)

// runway says how much is left of a CA certificate.
func runway(c *x509.Certificate, now time.Time) page.Cell {
	cell := page.Cell{Time: c.NotAfter.UTC(), More: left(now, c.NotAfter), Class: page.OK}
	switch share := spent(c, now); {
	case share >= spentCrit:
		cell.Class = page.Crit
	case share >= spentWarn:
		cell.Class = page.Warn
	}
	return cell
}

// trustPage has the roots and intermediates.
func (d *Dashboard) trustPage(ctx context.Context, r request) (*page.Page, error) {
	doc, all, err := d.documents(ctx)
	if err != nil {
		return nil, err
	}
	find, err := d.authorities(ctx, doc)
	if err != nil {
		return nil, err
	}
	lists, err := crl.ReadRoots(d.files.Path, rootsOf(doc, find))
	if err != nil {
		return nil, err
	}
	roots := page.Table{Caption: "Roots of the trust bundle", Columns: []string{"Root", "Stage", "Since", "Ends", "Not ready", "List", "Fingerprint"}}
	var missing []stepapi.Holder
	title, class := "Roots and intermediates", ""
	notes := []page.Link{}
	// Only the active and the staged root matter to who is not ready. An old one leaves the bundle.
	for _, fp := range doc.Roots {
		c := find[fp]
		without, more, err := d.without(ctx, r, all, fp)
		if err != nil {
			return nil, err
		}
		stage := page.Cell{Text: doc.Stage(fp), Class: page.OK}
		lacking := page.Cell{Text: atMost(len(without), more), Class: page.OK}
		if stage.Text != stepapi.StageActive {
			stage.Class = page.Info
		}
		switch {
		case len(without) == 0:
		case stage.Text == stepapi.StageStaged: // it can be activated only without them
			lacking.Class = page.Warn
			missing = append(missing, without...)
		case stage.Text == stepapi.StageActive: // clients that never report are among them
			lacking.Class = page.Info
			missing = append(missing, without...)
		}
		if doc.Stage(fp) == stepapi.StageStaged {
			text := fmt.Sprintf("Root %q is staged, and everybody has adopted it.", c.Subject.CommonName)
			if len(without) > 0 {
				text = fmt.Sprintf("Root %q is staged, and %s of the holders have not adopted it.", c.Subject.CommonName, atMost(len(without), more))
			}
			notes = append(notes, page.Link{Class: page.Info, Text: text})
		}
		list := page.Text("none")
		if l := lists.Of(c); l != nil {
			list = page.Cell{Text: "signed", More: fmt.Sprintf("%d bytes", len(l.DER()))}
		}
		roots.Rows = append(roots.Rows, []page.Cell{page.Text(c.Subject.CommonName), stage, page.At(doc.Since[fp]), runway(c, r.now), lacking, list, {Text: fp, Mono: true}})
	}
	intermediates, err := d.intermediates(ctx, r, doc, find)
	if err != nil {
		return nil, err
	}
	// A revoked intermediate may end: nobody accepts it already.
	for fp, c := range find {
		if _, revoked := doc.Revoked[fp]; !revoked && spent(c, r.now) >= spentWarn {
			notes = append(notes, page.Link{Class: page.Warn, Text: fmt.Sprintf("%q ends at %s, %s.", c.Subject.CommonName, c.NotAfter.UTC().Format(time.DateTime), left(r.now, c.NotAfter))})
			class = page.Warn
		}
	}
	return &page.Page{Title: title, Path: "/trust", Class: class, Rest: []string{fmt.Sprintf("Version %d of the trust, bundle %.16s.", doc.Version, doc.Digest())}, Sections: []page.Section{
		{ID: "roots", Title: "Roots", Notes: notes, Table: &roots},
		{ID: "intermediates", Title: "Intermediates", Table: intermediates},
		{ID: "missing", Title: "Who is not ready", Table: missingTable(missing, r.now)},
	}}, nil
}

// rootsOf returns the roots of a document, the active one first.
func rootsOf(doc *trust.Document, find map[string]*x509.Certificate) (out []*x509.Certificate) {
	for _, fp := range doc.Roots {
		out = append(out, find[fp])
	}
	return out
}

// atMost is a number of which the last one may not be known.
func atMost(n int, more bool) string {
	if more {
		return fmt.Sprintf("at least %d", n)
	}
	return fmt.Sprint(n)
}

// counted is a number up to query.Most.
func counted(n int64) string { return atMost(int(min(n, query.Most)), n > query.Most) }

// without returns the holders that have not reported a bundle with a root, as "root status" says it,
// and whether there are more than were looked at.
func (d *Dashboard) without(ctx context.Context, r request, all []*trust.Document, root string) ([]stepapi.Holder, bool, error) {
	var with []string
	for _, doc := range all {
		if digest := doc.Digest(); slices.Contains(doc.Roots, root) && !slices.Contains(with, digest) {
			with = append(with, digest)
		}
	}
	held, more, err := d.query.Lagging(ctx, with, r.now)
	if err != nil {
		return nil, false, err
	}
	return trust.NewFleet(held, all).Without(root), more, nil
}

// intermediates has the intermediates of the document, with what is under them.
func (d *Dashboard) intermediates(ctx context.Context, r request, doc *trust.Document, find map[string]*x509.Certificate) (*page.Table, error) {
	counts, err := d.query.Issuers(ctx, r.now)
	if err != nil {
		return nil, err
	}
	t := &page.Table{Caption: "Intermediates that may have a live certificate", Columns: []string{"Intermediate", "Use", "Ends", "Live certificates", "On its list", "Root", "Fingerprint"}}
	for i, fp := range doc.Intermediates {
		c := find[fp]
		use := page.Cell{Text: "signed before", Class: page.None}
		switch revoked, is := doc.Revoked[fp]; {
		case is:
			use = page.Cell{Text: "revoked", Class: page.Crit, More: revoked.UTC().Format(time.DateTime)}
		case i == 0:
			use = page.Cell{Text: "issues", Class: page.OK}
		case doc.Staged != nil && doc.Staged.Intermediate == fp:
			use = page.Cell{Text: "staged", Class: page.Info, More: namesOf(doc.Staged.Services)}
		}
		root := ""
		if by := cacert.RootOf(c, rootsOf(doc, find)); by != nil {
			root = by.Subject.CommonName
		}
		live, listed := "0", "0"
		for _, n := range counts {
			if n.KeyID == cacert.KeyID(c) {
				live, listed = counted(n.Live), counted(n.Revoked)
			}
		}
		t.Rows = append(t.Rows, []page.Cell{page.Text(c.Subject.CommonName), use, runway(c, r.now), page.Text(live), page.Text(listed), page.Text(root), {Text: fp, Mono: true}})
	}
	return t, nil
}

// missingTable has who would refuse certificates under a root that is staged or active.
func missingTable(list []stepapi.Holder, now time.Time) *page.Table {
	t := &page.Table{Caption: "Holders that have not reported a bundle with a root that is active or staged", Columns: []string{"Service", "Reason", "Last seen", "Renews by", "Ends", "Names", "Serial"},
		Empty: "Everybody has reported the bundle with each root that is active or staged.", CSV: "/csv/trust"}
	// Who lacks several roots is one row, with the reason for the first one.
	seen := map[string]bool{}
	for _, h := range list {
		if seen[h.Serial] || len(t.Rows) == pageRows {
			continue
		}
		seen[h.Serial] = true
		decimal, err := certs.ParseSerial(h.Serial)
		if err != nil {
			decimal = h.Serial
		}
		t.Rows = append(t.Rows, []page.Cell{page.Text(h.Service), page.Text(h.Reason), {Time: h.LastSeen, More: left(now, h.LastSeen)}, page.At(h.NextRenewal),
			page.At(h.Expires), page.Text(namesOf(h.Names)), {Text: h.Serial, Mono: true, Link: certificateAddress(decimal)}})
	}
	return t
}
