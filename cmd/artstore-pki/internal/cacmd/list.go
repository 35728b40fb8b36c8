package cacmd

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/records"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// maxPage is the most rows that the record returns at once.
const maxPage = record.MaxPage

// listCommand declares list. --search cannot be combined with the filters: it walks the names
// in their order, and the filters walk the certificates by their end.
func listCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list certificates in the record",
		Description: `Prints one page of what was ever issued, latest expiry first. If there is more, the cursor of
the next page goes to stderr. --search finds names by their beginning, in the order of names.`,
		Flags: []cli.Flag{
			flags.Shared(flags.Dir),
			&cli.StringFlag{Name: "service", Usage: "only this `SERVICE`"},
			&cli.StringFlag{Name: "name", Usage: "only certificates with this `NAME` (DNS, IP or URI)"},
			&cli.StringFlag{Name: "search", Usage: "only certificates with a name that begins with `TEXT`; not with other filters"},
			&cli.StringFlag{Name: "state", Usage: "only valid, expired or revoked ones"},
			&cli.StringFlag{Name: "issuer", Usage: "only from this intermediate: its common name, or the beginning of its subject key id in `HEX`"},
			&cli.GenericFlag{Name: "expires-within", Value: &values.Duration{}, DefaultText: "any", Usage: "only those that end within this `TIME`, such as 36h or 14d; soonest first"},
			&cli.IntFlag{Name: "limit", Value: 100, Usage: "rows per page, 1000 at most"},
			&cli.StringFlag{Name: "cursor", Usage: "continue where the page before ended"},
			&cli.BoolFlag{Name: "all", Usage: "all pages, one after the other"},
			output.Flag(output.Table, output.JSON, output.CSV),
		},
		Action: u.Action(runList),
	}
}

// runList prints certificates of the record, a page at a time. It checks all flags before
// it opens the record, and needs neither a password nor a running authority. The state of a
// certificate is judged at one moment, the start of the command, on all its pages. An
// --issuer that names no intermediate, or more than one, is an error.
func runList(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	if limit := c.Int("limit"); limit < 1 || limit > maxPage {
		return ui.UsageErrorf("--limit %d: want 1 to %d; --all prints all pages", limit, maxPage)
	}
	now := time.Now()
	format, err := output.Of(c, output.Table, output.JSON, output.CSV)
	if err != nil {
		return err
	}
	query, err := queryOf(c, now)
	if err != nil {
		return err
	}
	rec, err := records.Open(c.Context, c.String(flags.Dir), flags.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = rec.Close() }() // read only
	if query.Issuer != "" {
		if query.Issuer, err = rec.Issuer(c.Context, query.Issuer); err != nil {
			return ui.WithHint(err, "artstore-pki show SERIAL prints the whole key id of an issuer, inspect its common name")
		}
	}
	return printPages(u, c, pagesOf(rec, query, c.String("search")), newListWriter(u, format, now))
}

// printPages prints one page, or with --all every page from the cursor on, and ends the
// output. If there is more, the cursor of the next page goes to stderr, in the form of the
// flag that continues there. With --all a page has as many rows as the record gives at
// once, and --limit does not count.
//
// Each page is a query of its own. A cursor is a position and no offset, so certificates
// that are issued between two pages shift nothing.
func printPages(u *ui.UI, c *cli.Context, pages pageFunc, out listWriter) error {
	rows := 0
	limit := c.Int("limit")
	if c.Bool("all") {
		limit = maxPage
	}
	for cursor := c.String("cursor"); ; {
		page, next, err := pages(c.Context, limit, cursor)
		if err != nil {
			return err
		}
		if err := out.page(page); err != nil {
			return err
		}
		rows += len(page)
		if cursor = next; c.Bool("all") && next != "" {
			continue
		}
		if err := out.end(); err != nil {
			return err
		}
		switch {
		case next != "":
			u.Infof("more: --cursor %s", next)
		case rows == 0:
			u.Infof("no certificate is like that")
		}
		return nil
	}
}

// queryOf returns the query of the flags, which is judged at now. --expires-within turns the
// order round, soonest end first. --search beside a filter is an error of the command line.
func queryOf(c *cli.Context, now time.Time) (record.Query, error) {
	query := record.Query{
		Service: c.String("service"), Name: c.String("name"), State: c.String("state"), Issuer: c.String("issuer"), Now: now,
	}
	if within := values.DurationOf(c, "expires-within"); within > 0 {
		query.ExpiresBefore, query.SoonestFirst = now.Add(within), true
	}
	if c.String("search") != "" && query != (record.Query{Now: now}) {
		return query, ui.UsageErrorf("--search stands alone: no --service, --name, --state, --issuer or --expires-within with it")
	}
	return query, nil
}

// pageFunc returns the page behind a cursor, limit rows at most, and the cursor of the next
// page, which is "" after the last one. The cursor "" asks for the first page.
type pageFunc func(ctx context.Context, limit int, cursor string) (page []stepapi.RecordRow, next string, err error)

// pagesOf returns the function that reads the pages of query from rec, or, if prefix is not
// empty, those of a search for names that begin with it.
func pagesOf(rec *ca.Record, query record.Query, prefix string) pageFunc {
	return func(ctx context.Context, limit int, cursor string) ([]stepapi.RecordRow, string, error) {
		if prefix != "" {
			page, next, err := rec.Search(ctx, record.Search{Prefix: prefix, Limit: limit, Cursor: cursor})
			return rowsOf(page, query.Now), next, err
		}
		query.Limit, query.Cursor = limit, cursor
		page, next, err := rec.List(ctx, query)
		return rowsOf(page, query.Now), next, err
	}
}

// rowsOf returns for each certificate the row that list prints, with its state at now.
func rowsOf(page []record.Certificate, now time.Time) []stepapi.RecordRow {
	rows := make([]stepapi.RecordRow, len(page))
	for i, cert := range page {
		rows[i] = record.NewRow(cert, now)
	}
	return rows
}

// listWriter prints rows as they come, because a record may be larger than the memory. page
// prints the rows of one page. end completes the output, and is called once, after the last
// page. After an error it is not called, so that a reader can see that the output was cut.
type listWriter interface {
	page(rows []stepapi.RecordRow) error
	end() error
}

// newListWriter returns the writer of a format that [output.Of] has accepted, on the standard
// output of u. The table also prints how much is left of each life, counted from now.
func newListWriter(u *ui.UI, format string, now time.Time) listWriter {
	switch format {
	case output.JSON:
		return &listJSON{to: u.Out}
	case output.CSV:
		return &listCSV{to: csv.NewWriter(u.Out)}
	}
	return &listTable{make: u.NewTable, now: now}
}

// listJSON writes one object, also for several pages.
type listJSON struct {
	to   io.Writer
	some bool // a row was printed, and with it the beginning of the object
}

// page writes the beginning of the object together with the first row. An error of the first
// page therefore leaves stdout empty.
func (l *listJSON) page(rows []stepapi.RecordRow) error {
	for _, r := range rows {
		text, err := json.MarshalIndent(r, "    ", "  ")
		if err != nil {
			return err
		}
		before := ",\n    "
		if !l.some {
			before, l.some = "{\n  \"schema_version\": 1,\n  \"certificates\": [\n    ", true
		}
		if _, err := io.WriteString(l.to, before+string(text)); err != nil {
			return err
		}
	}
	return nil
}

// end completes the object. A list that was cut before it is not valid JSON, so no program
// takes it for a whole one.
func (l *listJSON) end() error {
	text := "\n  ]\n}\n"
	if !l.some {
		text = "{\n  \"schema_version\": 1,\n  \"certificates\": []\n}\n"
	}
	_, err := io.WriteString(l.to, text)
	return err
}

// listCSV writes a heading and one line for each certificate (RFC 4180 §2).
type listCSV struct {
	to   *csv.Writer
	head bool // the heading was written
}

// page cleans the text that callers have chosen, because the CSV may be shown on a terminal.
func (l *listCSV) page(rows []stepapi.RecordRow) error {
	if !l.head { // Flush keeps the errors of all writes
		l.head = true
		_ = l.to.Write([]string{"serial", "service", "state", "names", "not_before", "not_after", "kind", "caller", "lineage", "issuer"})
	}
	for _, r := range rows {
		_ = l.to.Write([]string{r.Serial, printable.Clean(r.Service), r.State, printable.Clean(strings.Join(r.Names, " ")),
			r.NotBefore.Format(time.RFC3339), r.NotAfter.Format(time.RFC3339), r.Kind, printable.Clean(r.Caller), r.Lineage, r.Issuer})
	}
	return l.end()
}

// end writes what the writer has buffered, and returns the first error of all writes before.
func (l *listCSV) end() error {
	l.to.Flush()
	return l.to.Error()
}

// listTable prints a table whose columns are as wide as the widest cell so far: each page is
// aligned with those before it.
type listTable struct {
	make   func(header ...string) *ui.Table
	to     *ui.Table // nil before the first page
	served bool      // there is a column for what is served
	now    time.Time
}

// begin makes the table. Where no agent reports what is served, there is no column for that: the
// first page decides, because the heading is printed with it.
func (l *listTable) begin(rows []stepapi.RecordRow) {
	if l.to != nil {
		return
	}
	l.served = slices.ContainsFunc(rows, func(r stepapi.RecordRow) bool { return r.Served != nil })
	header := []string{"SERIAL", "SERVICE", "STATE", "ENDS", "LEFT", "KIND"}
	if l.served {
		header = append(header, "SERVED SINCE")
	}
	l.to = l.make(append(header, "NAMES")...)
}

// page prints serials in hex, which is shorter than decimal and what show and revoke take too.
func (l *listTable) page(rows []stepapi.RecordRow) error {
	l.begin(rows)
	for _, r := range rows {
		cells := []string{r.SerialHex, r.Service, r.State, humantime.Stamp(r.NotAfter), left(l.now, r.NotAfter), r.Kind}
		if l.served {
			cells = append(cells, servedSince(r.Served))
		}
		l.to.Row(append(cells, strings.Join(r.Names, " "))...)
	}
	return l.to.Flush()
}

// end prints the heading where there was no row.
func (l *listTable) end() error {
	l.begin(nil)
	return l.to.Flush()
}

// servedSince returns since when a certificate is served, or "-" if no agent has reported that.
func servedSince(s *stepapi.Served) string {
	if s == nil {
		return "-"
	}
	return humantime.Stamp(s.Since)
}

// left returns the time from now until end as text, such as 3d, or "-" if end is not after now.
func left(now, end time.Time) string {
	if !now.Before(end) {
		return "-"
	}
	return humantime.Short(humantime.Between(now, end))
}
