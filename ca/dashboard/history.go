package dashboard

// Pages about what has happened: issuing and refusals over time, revocations, the log, and the search. Numbers
// come from the counts by hour. Lists come from the record itself, the newest first, and go on as far as
// the record does.

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/dashboard/internal/page"
	"github.com/artstore/artstore-pki/ca/dashboard/internal/query"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/internal/tally"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/record/reasons"
	"github.com/artstore/artstore-pki/internal/certs"
)

// span is a time over which events are counted.
type span struct {
	name, text string
	hours      int // altogether
	step       int // hours of a bar
	form       string
}

// spans are chosen so that a chart has some dozens of bars: one that is narrower than a finger says nothing.
var spans = []span{
	{"24h", "24 hours", 24, 1, "2006-01-02 15:04"},
	{"7d", "7 days", 7 * 24, 3, "2006-01-02 15:04"},
	{"30d", "30 days", 30 * 24, 24, "2006-01-02"},
}

// summed adds up the numbers of hours to those of steps.
func (s span) summed(hours []int64) []int64 {
	out := make([]int64, s.hours/s.step)
	for i, n := range hours {
		out[i/s.step] += n
	}
	return out
}

// issuancePage counts events by kind and refusals by rule, and lists the refusals.
func (d *Dashboard) issuancePage(ctx context.Context, r request) (*page.Page, error) {
	over := spans[0]
	form := &page.Form{Action: "/issuance"}
	for _, s := range spans {
		if s.name == r.value("over") {
			over = s
		}
	}
	for _, s := range spans {
		form.Choices = append(form.Choices, page.Link{Text: s.text, To: address("/issuance", "over", s.name), On: s.name == over.name})
	}
	from := tally.Hour(sqldb.Millis(r.now)) - int64(over.hours) + 1
	issued := &page.Chart{Caption: "Certificates issued, in the last " + over.text + ".", Series: []string{"first ones", "renewed", "with a new key", "own"}, Classes: []string{page.Info, page.OK, page.OK, page.None}}
	err := d.fill(ctx, r, issued, over, from, []string{tally.Events + kinds.Issued, tally.Events + kinds.Renewed, tally.Events + kinds.Rekeyed, tally.Events + kinds.SelfIssued})
	if err != nil {
		return nil, err
	}
	refused := &page.Chart{Caption: "Refusals and revocations, in the last " + over.text + ".", Series: []string{"refused", "revoked"}, Classes: []string{page.Warn, page.Crit}}
	if err := d.fill(ctx, r, refused, over, from, []string{tally.Events + kinds.Refused, tally.Events + kinds.Revoked}); err != nil {
		return nil, err
	}
	rules, err := d.rulesTable(ctx, r, over, from)
	if err != nil {
		return nil, err
	}
	latest, next, err := r.query.Events(ctx, kinds.Refused, r.value("after"))
	if err != nil {
		return nil, err
	}
	t := eventTable(latest, "Refusals, the newest first")
	t.CSV = "/csv/issuance"
	if next != "" {
		t.Next = address("/issuance", "over", over.name, "after", next)
	}
	if r.value("after") != "" {
		t.First = address("/issuance", "over", over.name)
	}
	return &page.Page{Title: "Issuance and refusals", Path: "/issuance", Sections: []page.Section{
		{ID: "issued", Title: "Issued", Form: form, Chart: issued}, {ID: "refused", Title: "Refused and revoked", Chart: refused},
		{ID: "rules", Title: "Refusals by rule", Table: rules}, {ID: "latest", Title: "Latest refusals", Table: t},
	}}, nil
}

// fill draws one series for each of what is counted.
func (d *Dashboard) fill(ctx context.Context, r request, c *page.Chart, over span, from int64, what []string) error {
	columns := make([][]int64, len(what))
	for i, w := range what {
		hours, err := r.query.Series(ctx, from, over.hours, w)
		if err != nil {
			return err
		}
		columns[i] = over.summed(hours)
	}
	for step := range over.hours / over.step {
		b := page.Bar{Label: sqldb.FromMillis((from + int64(step*over.step)) * time.Hour.Milliseconds()).Format(over.form)}
		for i := range columns {
			b.Parts = append(b.Parts, columns[i][step])
		}
		c.Bars = append(c.Bars, b)
	}
	c.From, c.To = over.text+" ago", "now"
	return nil
}

// rulesTable counts what each rule has refused.
func (d *Dashboard) rulesTable(ctx context.Context, r request, over span, from int64) (*page.Table, error) {
	rules, err := r.query.Rules(ctx)
	if err != nil {
		return nil, err
	}
	t := &page.Table{Caption: "Refusals in the last " + over.text + " by the rule that refused", Columns: []string{"Rule", "Refusals", "Last hour"}, Empty: "Nothing was refused yet."}
	for _, rule := range rules {
		hours, err := r.query.Series(ctx, from, over.hours, tally.Refusals+rule)
		if err != nil {
			return nil, err
		}
		var n int64
		for _, h := range hours {
			n += h
		}
		t.Rows = append(t.Rows, []page.Cell{page.Text(rule), page.Text(fmt.Sprint(n)), page.Text(fmt.Sprint(hours[len(hours)-1]))})
	}
	return t, nil
}

// revocationsPage lists revocations, and what is on the list of each intermediate.
func (d *Dashboard) revocationsPage(ctx context.Context, r request) (*page.Page, error) {
	list, next, err := r.query.Revocations(ctx, r.value("after"))
	if err != nil {
		return nil, err
	}
	issuers, err := d.query.Issuers(ctx, r.now)
	if err != nil {
		return nil, err
	}
	// The lists themselves are signed in the memory of each authority, so what is shown is what the next
	// one of each issuer has on it.
	lists := page.Table{Caption: "What is on the revocation list of each intermediate: an entry leaves it when its certificate ends", Columns: []string{"Issuer", "Entries", "Live certificates"}, Empty: "Nothing was issued yet."}
	for _, i := range issuers {
		lists.Rows = append(lists.Rows, []page.Cell{{Text: i.KeyID, Mono: true}, page.Text(counted(i.Revoked)), page.Text(counted(i.Live))})
	}
	t := page.Table{Caption: "Revocations, the newest first", Columns: []string{"Revoked", "Service", "Reason", "By", "Note", "Certificate ends", "Serial"}, Empty: "Nothing is revoked.", CSV: "/csv/revocations"}
	for _, v := range list {
		ends := page.Cell{Time: v.NotAfter, More: left(r.now, v.NotAfter)}
		t.Rows = append(t.Rows, []page.Cell{page.At(v.RevokedAt), {Text: v.Service, Link: address("/services", "service", v.Service)}, page.Text(reasons.Name(v.Reason)), page.Text(v.Caller), page.Text(v.Note), ends,
			{Text: certs.HexSerial(v.Serial), Mono: true, Link: certificateAddress(v.Serial)}})
	}
	if next != "" {
		t.Next = address("/revocations", "after", next)
	}
	if r.value("after") != "" {
		t.First = "/revocations"
	}
	return &page.Page{Title: "Revocations", Path: "/revocations", Sections: []page.Section{{ID: "list", Title: "Revoked certificates", Table: &t}, {ID: "lists", Title: "Revocation lists", Table: &lists}}}, nil
}

// logPage says whether the log is kept, and lists the newest events.
func (d *Dashboard) logPage(ctx context.Context, r request) (*page.Page, error) {
	head, text, err := d.head(ctx)
	if err != nil {
		return nil, err
	}
	n, err := r.query.Counts(ctx, r.now)
	if err != nil {
		return nil, err
	}
	list, next, err := r.query.Events(ctx, "", r.value("after"))
	if err != nil {
		return nil, err
	}
	t := eventTable(list, "Events, the newest first")
	t.CSV = "/csv/log"
	if next != "" {
		t.Next = address("/log", "after", next)
	}
	if r.value("after") != "" {
		t.First = "/log"
	}
	waiting := page.Cell{Text: counted(n.Pending), Class: page.OK}
	p := &page.Page{Title: "The log is kept", Class: page.OK, Path: "/log"}
	if n.Pending > 0 && r.now.Sub(n.Oldest) > waitMost {
		p.Title, p.Class = "Events wait for their place in the log", page.Crit
		waiting.Class, waiting.More = page.Crit, "the first since "+n.Oldest.Format(time.DateTime)
	}
	// The marker is in the state directory: it shows whether the record is older than what this authority
	// has signed. An authority refuses to start then; the dashboard shows it.
	marker := page.Cell{Text: "none", Class: page.Warn}
	if known, ok, err := statedir.ReadMarker(d.files.Path, d.verifier); err == nil && ok {
		marker = page.Cell{Text: fmt.Sprintf("%d entries", known.Size), More: known.Time.UTC().Format(time.DateTime)}
	} else if err != nil {
		marker = page.Cell{Text: "cannot be read", Class: page.Warn}
	}
	p.Sections = []page.Section{
		{ID: "health", Title: "Health", Facts: []page.Fact{
			{Name: "Entries", Cell: page.Text(fmt.Sprint(head.Size))}, {Name: "Head signed", Cell: page.Cell{Time: head.Time.UTC(), More: left(r.now, head.Time)}},
			{Name: "Root of the tree", Cell: page.Cell{Text: head.Root.String(), Mono: true}}, {Name: "Events without a place", Cell: waiting},
			{Name: "Marker beside the keys", Cell: marker}, {Name: "Entries not counted for this dashboard", Cell: page.Text(fmt.Sprint(n.Behind))},
		}, Notes: []page.Link{{Class: page.Info, Text: "The signature of the head is good. \"artstore-pki log verify\" compares every row with the log."}}},
		{ID: "head", Title: "Newest head", Text: string(text)},
		{ID: "events", Title: "Newest events", Table: t},
	}
	return p, nil
}

// searchPage finds certificates by serial, fingerprint or the beginning of a name. What names one
// certificate leads to its page.
func (d *Dashboard) searchPage(ctx context.Context, r request) (*page.Page, error) {
	text := strings.TrimSpace(r.value("q"))
	p := &page.Page{Title: "Search", Path: "/search"}
	s := page.Section{ID: "find", Title: "Find certificates", Form: &page.Form{Action: "/search", Label: "Name, serial or SHA-256", Name: "q", Value: text, Hint: "The beginning of a name, a serial (decimal, 0x and hex, or hex with colons), or a fingerprint."}}
	defer func() { p.Sections = append(p.Sections, s) }()
	if text == "" {
		return p, nil
	}
	if serial, err := d.exact(ctx, r, text); err != nil || serial != "" {
		if err != nil {
			return nil, err
		}
		return &page.Page{Path: redirect + certificateAddress(serial)}, nil
	}
	list, next, err := d.byName(ctx, r, text)
	if err != nil {
		return nil, err
	}
	t := &page.Table{Caption: "Certificates with a name that begins so, by name", Columns: []string{"Names", "Service", "State", "Begins", "Ends", "Serial"}, Empty: "No certificate has such a name, serial or fingerprint.", CSV: address("/csv/search", "q", text)}
	for i := range list {
		c := &list[i]
		t.Rows = append(t.Rows, []page.Cell{page.Text(namesOf(c.Names)), {Text: c.Service, Link: address("/services", "service", c.Service)}, {Text: c.State(r.now), Class: classOf(c, r.now)},
			page.At(c.NotBefore), page.At(c.NotAfter), {Text: certs.HexSerial(c.Serial), Mono: true, Link: certificateAddress(c.Serial)}})
	}
	if next != "" {
		t.Next = address("/search", "q", text, "after", next)
	}
	if r.value("after") != "" {
		t.First = address("/search", "q", text)
	}
	s.Table = t
	return p, nil
}

// searchCursor is the form of the cursors of a search: two numbers and a name.
var searchCursor = regexp.MustCompile(`^-?[0-9]{1,19}\.[0-9]{1,19}\.`)

// byName finds certificates by the beginning of a name. Names are ASCII, so another text finds none.
func (d *Dashboard) byName(ctx context.Context, r request, text string) ([]record.Certificate, string, error) {
	after, limit := r.value("after"), pageRows
	if r.csv {
		limit = csvRows
	}
	if len(text) > maxName || strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return nil, "", nil
	}
	if after != "" && !searchCursor.MatchString(after) {
		return nil, "", fmt.Errorf("%.60q: %w", after, query.ErrCursor)
	}
	return d.names.Search(ctx, record.Search{Prefix: strings.ToLower(text), Limit: limit, Cursor: after})
}

// maxName is the longest name that there can be in DNS, and longer than any serial or fingerprint.
const maxName = 253

// exact returns the serial of the certificate that a text names by its fingerprint or serial, or "".
func (d *Dashboard) exact(ctx context.Context, r request, text string) (string, error) {
	// A fingerprint is also a number of hex digits, so it comes before serials.
	if fingerprint, err := certs.ParseFingerprint(text); err == nil {
		serial, err := r.query.ByFingerprint(ctx, fingerprint)
		if err == nil || !errors.Is(err, record.ErrNotFound) {
			return serial, err
		}
	}
	if len(text) > maxName { // reading a number takes longer the longer it is
		return "", nil
	}
	serial, err := certs.ParseSerial(text)
	if err != nil {
		return "", nil //nolint:nilerr // a text that is no serial may be a name
	}
	_, err = r.query.Certificate(ctx, serial)
	if errors.Is(err, record.ErrNotFound) {
		return "", nil
	}
	return serial, err
}
