package dashboard

// The first page answers one question: is there anything to do, now or before tomorrow? Its heading is
// the worst of what is not as it should be, in one sentence, or that all is well. The rest is the
// evidence: what ends when, what was renewed, and who is next.
//
// It is what people leave open and reload, so it is made once a second at most, and who asks meanwhile
// gets the same page. Nothing in it depends on who asks.

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/ca/dashboard/internal/page"
	"github.com/artstore/artstore-pki/ca/dashboard/internal/query"
	"github.com/artstore/artstore-pki/internal/humantime"
)

const (
	// crowd and crowdShare say when many certificates end in one hour: at least so many, and such a
	// share of all.
	crowd      = 20
	crowdShare = 4
	// soon is how near the end of a certificate that is overdue is critical.
	soon = time.Hour
	// waitMost is how long an event may wait for its place in the log. The authority takes a second.
	waitMost = time.Minute
	// behindMost is how many entries of the log may not be counted yet without a note.
	behindMost = 2000
	// nextEnds is how many certificates the first page names.
	nextEnds = 10
)

// frontPage says in one sentence whether all is well, and what is next.
func (d *Dashboard) frontPage(ctx context.Context, r request) (*page.Page, error) {
	if r.csv {
		return d.makeFront(ctx, r)
	}
	select {
	case d.frontTurn <- struct{}{}:
		defer func() { <-d.frontTurn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if age := r.now.Sub(d.frontAt); d.front != nil && age >= 0 && age < frontAge {
		kept := *d.front
		return &kept, nil
	}
	p, err := d.makeFront(ctx, r)
	if err != nil {
		return nil, err
	}
	d.front, d.frontAt = p, r.now
	kept := *p
	return &kept, nil
}

// outlook is what the first page is made of.
type outlook struct {
	query.Numbers
	now     time.Time
	next    []query.Holder // that end next
	overdue []query.Holder // that are overdue, the longest first
	cas     []*x509.Certificate
	known   bundles
	staged  string // a sentence about a staged root, or ""
}

// makeFront reads what the first page is made of. All of it is a few dozens of rows, whatever the size of
// the record is.
func (d *Dashboard) makeFront(ctx context.Context, r request) (*page.Page, error) {
	o := outlook{now: r.now}
	var err error
	if o.Numbers, err = r.query.Counts(ctx, r.now); err != nil {
		return nil, err
	}
	few := r.query.WithLimit(nextEnds)
	if o.next, _, err = few.Holders(ctx, query.HolderFilter{Show: query.Live, Now: r.now}); err != nil {
		return nil, err
	}
	if o.overdue, _, err = few.Holders(ctx, query.HolderFilter{Show: query.Overdue, Now: r.now}); err != nil {
		return nil, err
	}
	doc, all, err := d.documents(ctx)
	if err != nil {
		return nil, err
	}
	find, err := d.authorities(ctx, doc)
	if err != nil {
		return nil, err
	}
	o.known, o.cas = bundlesOf(all), []*x509.Certificate{find[doc.Roots[0]], find[doc.Intermediates[0]]}
	if doc.Staged != nil {
		o.staged = fmt.Sprintf("Root %q is staged.", find[doc.Staged.Root].Subject.CommonName)
	}
	return o.page(), nil
}

// notes are the sentences about what is not as it should be, the worst first.
func (o *outlook) notes() (out []page.Link) {
	add := func(class, link, format string, args ...any) {
		out = append(out, page.Link{Class: class, To: link, Text: fmt.Sprintf(format, args...)})
	}
	for _, c := range o.cas {
		switch share := spent(c, o.now); {
		case share >= spentCrit:
			add(page.Crit, "/trust", "%q has ended: nothing that it signed is accepted any more.", c.Subject.CommonName)
		case share >= spentWarn:
			add(page.Warn, "/trust", "%q ends %s: begin with its successor.", c.Subject.CommonName, left(o.now, c.NotAfter))
		}
	}
	// The oldest event decides and not their number: in a burst many wait, and none for long.
	if o.Pending > 0 && o.now.Sub(o.Oldest) > waitMost {
		add(page.Crit, "/log", "%s in the log for %s: the authority that keeps it does not run, or fails.", count(o.Pending, "event has had no place", "events have had no place"), humantime.Short(humantime.Between(o.Oldest, o.now)))
	}
	if o.Overdue > 0 {
		// A service that is down for good is overdue until its certificate ends. It becomes urgent when
		// that is near.
		class := page.Warn
		if len(o.next) > 0 && o.next[0].NotAfter.Sub(o.now) < soon && !o.now.Before(o.next[0].OverdueAt) {
			class = page.Crit
		}
		add(class, "/services?show=overdue", "%s.", count(o.Overdue, "certificate is overdue for renewal", "certificates are overdue for renewal"))
	}
	if hour, n := o.crowded(); n > 0 {
		add(page.Warn, "/services", "%d of %d certificates end in one hour, from %s UTC: what keeps them from renewing then ends them together.", n, o.Live, o.hourAt(hour).Format("15:04"))
	}
	if o.Lapsed > 0 {
		add(page.Warn, "/services?show=ended", "%s without a renewal in the last 24 h.", count(o.Lapsed, "certificate has ended", "certificates have ended"))
	}
	if o.Behind > behindMost {
		add(page.Info, "/log", "%d events are not counted yet: the numbers here are too small.", o.Behind)
	}
	if o.staged != "" {
		add(page.Info, "/trust", "%s", o.staged)
	}
	return out
}

// count is a number with its word; more than query.Most is not counted.
func count(n int64, one, many string) string {
	switch {
	case n == 1:
		return "1 " + one
	case n > query.Most:
		return fmt.Sprintf("More than %d %s", query.Most, many)
	}
	return fmt.Sprintf("%d %s", n, many)
}

// hourAt is the beginning of an hour, counted from the present one.
func (o *outlook) hourAt(i int) time.Time {
	return o.now.UTC().Truncate(time.Hour).Add(time.Duration(i) * time.Hour)
}

// crowded returns the hour in which most certificates end, if they are many.
func (o *outlook) crowded() (hour int, n int64) {
	for i, ends := range o.Ends {
		if ends >= crowd && ends*crowdShare >= o.Live && ends > n {
			hour, n = i, ends
		}
	}
	return hour, n
}

// verdict is the sentence, with its class.
func (o *outlook) verdict(notes []page.Link) (title, class string, rest []string) {
	// What is only worth knowing does not take the green away.
	worst := page.OK
	for _, n := range notes {
		if n.Class == page.Crit || n.Class == page.Warn && worst == page.OK {
			worst = n.Class
		}
	}
	next := "Nobody holds a certificate."
	if len(o.next) > 0 {
		h := o.next[0]
		next = fmt.Sprintf("The next certificate to end is that of %s, %s; ", h.Service, left(o.now, h.NotAfter))
		switch {
		case h.LineageRevoked:
			next += "its lineage is revoked, so nobody renews it."
		case o.now.Before(h.Due):
			next += "it renews by " + h.Due.Format("15:04") + " UTC."
		default:
			next += "it should have renewed " + left(o.now, h.Due) + "."
		}
	}
	switch {
	case worst == page.OK && o.Live == 0:
		return "Nobody holds a certificate yet", page.None, nil
	case worst == page.OK && o.Live == 1:
		title = "The one certificate in use is fine"
	case worst == page.OK:
		title = fmt.Sprintf("All %d certificates in use are fine", o.Live)
	default:
		for _, n := range notes {
			if n.Class == worst {
				return n.Text, worst, []string{next}
			}
		}
	}
	return title, worst, []string{next}
}

// page puts the parts together. Sections without content are left out, so that a quiet day is a short page.
func (o *outlook) page() *page.Page {
	notes := o.notes()
	p := &page.Page{Path: "/"}
	p.Title, p.Class, p.Rest = o.verdict(notes)
	tile := func(n int64, word, class, link string) {
		if n == 0 {
			class = page.None
		}
		text := fmt.Sprint(n)
		if n > query.Most && word != "in use" {
			text = fmt.Sprintf("> %d", query.Most)
		}
		p.Tiles = append(p.Tiles, page.Link{Class: class, Count: text, Text: word, To: link})
	}
	tile(o.Live, "in use", page.OK, "/services")
	tile(o.Overdue, "overdue", page.Warn, "/services?show=overdue")
	tile(o.Lapsed, "ended in 24 h", page.Warn, "/services?show=ended")
	if len(notes) > 0 {
		p.Sections = append(p.Sections, page.Section{ID: "notes", Title: "What to look at", Notes: notes})
	}
	if len(o.overdue) > 0 {
		t := holdersTable(o.overdue, o.known, o.now)
		t.Next = ""
		p.Sections = append(p.Sections, page.Section{ID: "overdue", Title: "Overdue for renewal", Table: &t})
	}
	next := holdersTable(o.next, o.known, o.now)
	next.Caption, next.CSV = "The certificates that end next", "/csv/ends"
	p.Sections = append(p.Sections,
		page.Section{ID: "ends", Title: "When certificates end", Chart: o.ends()},
		page.Section{ID: "renewals", Title: "Renewals", Chart: o.renewals()},
		page.Section{ID: "next", Title: "Next to end", Table: &next},
		page.Section{ID: "authority", Title: "The authority", Facts: o.facts()})
	return p
}

// facts are about the certificates of the authority itself, whose end stops everything.
func (o *outlook) facts() (out []page.Fact) {
	for i, name := range []string{"Active root", "Issuing intermediate"} {
		cell := runway(o.cas[i], o.now)
		cell.Link = "/trust"
		out = append(out, page.Fact{Name: name + ": " + clip(o.cas[i].Subject.CommonName), Cell: cell})
	}
	return append(out, page.Fact{Name: "Events that wait for the log", Cell: page.Cell{Text: fmt.Sprint(o.Pending), Link: "/log"}})
}

// ends draws how many certificates end in each hour.
func (o *outlook) ends() *page.Chart {
	c := &page.Chart{Caption: fmt.Sprintf("Certificates in use by the hour of their end, the next %d hours.", query.Hours), Series: []string{"end"}, Classes: []string{page.Info}}
	crowdedHour, crowded := o.crowded()
	if crowded > 0 {
		c.Series, c.Classes = append(c.Series, "end in the hour of most"), append(c.Classes, page.Warn)
	}
	for i, n := range o.Ends {
		parts := []int64{n}
		if crowded > 0 {
			if parts = []int64{n, 0}; i == crowdedHour {
				parts = []int64{0, n}
			}
		}
		c.Bars = append(c.Bars, page.Bar{Label: o.hourAt(i).Format("2006-01-02 15:04"), Parts: parts})
	}
	c.From, c.To = "now", fmt.Sprintf("in %d h", query.Hours)
	return c
}

// renewals draws what was renewed, and what is due.
func (o *outlook) renewals() *page.Chart {
	c := &page.Chart{Caption: "Renewals done, and renewals due by the end of their window, by the hour.", Series: []string{"done", "due"}, Classes: []string{page.OK, page.Info}}
	// What is done is to the left of the present and what is due to its right. The present hour has both: it
	// is not over.
	half := query.Hours / 2
	for i := range o.Done[half:] {
		c.Bars = append(c.Bars, page.Bar{Label: o.hourAt(i - half + 1).Format("2006-01-02 15:04"), Parts: []int64{o.Done[half+i], 0}})
	}
	for i, n := range o.Dues[:half] {
		c.Bars = append(c.Bars, page.Bar{Label: o.hourAt(i).Format("2006-01-02 15:04"), Parts: []int64{0, n}})
	}
	c.From, c.To = fmt.Sprintf("%d h ago", half), fmt.Sprintf("in %d h", half)
	return c
}
