package dashboard

// A service is shown by its lineages, because a lineage is what a holder has: its certificates follow each
// other every few hours, and a row for each would bury what matters. The row is that of the newest
// certificate; its page has the ones before.
//
// Three things about a holder come from different sources, and are shown apart: what the authority has
// issued, which is certain; where it is served, which an agent says; and which trust bundle is in effect,
// which the client says.

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/dashboard/internal/page"
	"github.com/artstore/artstore-pki/ca/dashboard/internal/query"
	"github.com/artstore/artstore-pki/ca/internal/tally"
	"github.com/artstore/artstore-pki/ca/internal/trust"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/certs"
)

// shownNames is how many names of a certificate a row has.
const shownNames = 3

// namesOf returns the first names of a certificate, and how many there are more.
func namesOf(list []string) string {
	if len(list) <= shownNames {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%d names: %s …", len(list), strings.Join(list[:shownNames], ", "))
}

// stateOf says what the certificate of a lineage is at a moment, in a word.
func stateOf(h *query.Holder, now time.Time) page.Cell {
	// The state in the table is as of the last count. A certificate that has ended since is seen here.
	switch {
	case h.State == tally.Revoked:
		return page.Cell{Text: "revoked", Class: page.Crit}
	case h.State == tally.Replaced:
		return page.Cell{Text: "replaced", Class: page.None, More: "by a later order of its ACME account"}
	case !now.Before(h.NotAfter):
		return page.Cell{Text: "ended", Class: page.None, More: left(now, h.NotAfter)}
	case h.LineageRevoked:
		return page.Cell{Text: "will not renew", Class: page.Warn, More: "another certificate of its lineage is revoked"}
	case !now.Before(h.OverdueAt):
		return page.Cell{Text: "overdue", Class: page.Warn, More: "should have renewed " + left(now, h.Due)}
	}
	return page.Cell{Text: "fine", Class: page.OK}
}

// bundles says which version of the trust a digest is.
type bundles struct {
	current string
	version map[string]int64
}

// bundlesOf numbers the bundles by the versions that had them first.
func bundlesOf(documents []*trust.Document) bundles {
	b := bundles{version: map[string]int64{}}
	for i, d := range documents { // the newest first
		if b.version[d.Digest()] = d.Version; i == 0 {
			b.current = d.Digest()
		}
	}
	return b
}

// cell says which bundle is in effect at a holder.
func (b bundles) cell(reports []record.TrustReport) page.Cell {
	lagging, other := 0, ""
	for _, r := range reports {
		if r.Digest != b.current {
			lagging++
			other = "an unknown bundle"
			if v, known := b.version[r.Digest]; known {
				other = fmt.Sprintf("that of version %d", v)
			}
		}
	}
	switch {
	case len(reports) == 0:
		return page.Cell{Text: "not reported", Class: page.None}
	case lagging == 0:
		return page.Cell{Text: "current", Class: page.OK}
	case len(reports) == 1:
		return page.Cell{Text: "behind", Class: page.Warn, More: other}
	}
	return page.Cell{Text: "behind", Class: page.Warn, More: fmt.Sprintf("%d of %d processes, one has %s", lagging, len(reports), other)}
}

// viewNames are the views of the list, in the order of their links.
var viewNames = []struct{ show, text string }{
	{query.Live, "Live"}, {query.Overdue, "Overdue"}, {query.Ended, "Ended"}, {query.Revoked, "Revoked"}, {query.Replaced, "Replaced"}, {query.Silent, "No bundle reported"},
}

// servicesPage has a row for each lineage.
func (d *Dashboard) servicesPage(ctx context.Context, r request) (*page.Page, error) {
	show, service := r.value("show"), strings.TrimSpace(r.value("service"))
	if show == "" {
		show = query.Live
	}
	if show == query.Overdue || show == query.Silent {
		service = "" // these have no index by services
	}
	list, next, err := r.query.Holders(ctx, query.HolderFilter{Show: show, Service: service, Now: r.now, Cursor: r.value("after")})
	if err != nil {
		return nil, err
	}
	_, documents, err := d.documents(ctx)
	if err != nil {
		return nil, err
	}
	t := holdersTable(list, bundlesOf(documents), r.now)
	t.CSV = address("/csv/services", "show", show, "service", service)
	if next != "" {
		t.Next = address("/services", "show", show, "service", service, "after", next)
	}
	if r.value("after") != "" {
		t.First = address("/services", "show", show, "service", service)
	}
	form := &page.Form{Action: "/services", Label: "Service", Name: "service", Value: service, Hint: "The whole name of a service; empty shows all."}
	if show != query.Live {
		form.Keep = []page.Fact{{Name: "show", Cell: page.Text(show)}}
	}
	if show == query.Overdue || show == query.Silent {
		form.Label, form.Hint = "", ""
	}
	title := "Services"
	for _, v := range viewNames {
		form.Choices = append(form.Choices, page.Link{Text: v.text, To: address("/services", "show", v.show, "service", service), On: v.show == show})
		if v.show == show {
			title = "Services: " + strings.ToLower(v.text)
		}
	}
	return &page.Page{Title: title, Path: "/services", Rest: []string{"A row is a lineage: a first certificate and what was renewed from it, with the newest one."},
		Sections: []page.Section{{ID: "lineages", Title: "Lineages", Form: form, Table: &t}}}, nil
}

// holdersTable shows lineages.
func holdersTable(list []query.Holder, known bundles, now time.Time) page.Table {
	t := page.Table{Caption: "Lineages with their newest certificates", Columns: []string{"Service", "State", "Ends", "Renews by", "Names", "Served", "Trust bundle", "Serial"},
		Empty: "There is none."}
	for i := range list {
		h := &list[i]
		served := page.Cell{Text: "not reported", Class: page.None}
		if h.Served != nil {
			served = page.Cell{Time: h.Served.Since, More: "at " + h.Served.Address}
			if h.Served.Servers > 1 {
				served.More += fmt.Sprintf(" and %d more", h.Served.Servers-1)
			}
		}
		t.Rows = append(t.Rows, []page.Cell{
			{Text: h.Service, Link: address("/services", "service", h.Service)}, stateOf(h, now), {Time: h.NotAfter, More: left(now, h.NotAfter)}, page.At(h.Due),
			page.Text(namesOf(h.Names)), served, known.cell(h.Reports), {Text: certs.HexSerial(h.Serial), Mono: true, Link: certificateAddress(h.Serial)},
		})
	}
	return t
}
