package main

import (
	"context"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/store"
)

func listCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list certificates in the record",
		Description: `Prints one page of what was ever issued, latest expiry first. If there is more, the cursor of
the next page goes to stderr. --search finds names by their beginning, in the order of names.`,
		Flags: []cli.Flag{
			dirFlag(),
			&cli.StringFlag{Name: "service", Usage: "only this `SERVICE`"},
			&cli.StringFlag{Name: "name", Usage: "only certificates with this `NAME` (DNS, IP or URI)"},
			&cli.StringFlag{Name: "search", Usage: "only certificates with a name that begins with `TEXT`; not with other filters"},
			&cli.StringFlag{Name: "state", Usage: "only valid, expired or revoked ones"},
			&cli.StringFlag{Name: "issuer", Usage: "only from the intermediate with this subject key id, in `HEX`"},
			&cli.GenericFlag{Name: "expires-within", Value: &span{}, DefaultText: "any", Usage: "only those that end within this `TIME`, such as 36h or 14d; soonest first"},
			&cli.IntFlag{Name: "limit", Value: 100, Usage: "rows per page, 1000 at most"},
			&cli.StringFlag{Name: "cursor", Usage: "continue where the page before ended"},
			&cli.BoolFlag{Name: "all", Usage: "all pages, one after the other"},
			outputFlag(outputTable, outputJSON, outputCSV),
		},
		Action: u.runList,
	}
}

func (u *ui) runList(c *cli.Context) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	now := time.Now()
	out, err := u.listWriter(c.String(flagOutput), now)
	if err != nil {
		return err
	}
	pages, err := pagesOf(c, now)
	if err != nil {
		return err
	}
	record, err := openRecord(c.Context, c.String(flagDir), flagDir)
	if err != nil {
		return err
	}
	defer func() { _ = record.Close() }() // read only
	limit := c.Int("limit")
	if c.Bool("all") {
		limit = 1000
	}
	for cursor := c.String("cursor"); ; {
		page, next, err := pages(c.Context, record, limit, cursor)
		if err != nil {
			return err
		}
		if err := out.page(rowsOf(page, now)); err != nil {
			return err
		}
		if cursor = next; c.Bool("all") && next != "" {
			continue
		}
		if err := out.end(); err != nil {
			return err
		}
		if next != "" {
			u.say("more: --cursor %s", next)
		}
		return nil
	}
}

// pageFunc reads the page behind a cursor.
type pageFunc func(ctx context.Context, record *ca.Record, limit int, cursor string) ([]store.Certificate, string, error)

// pagesOf turns the filters into what reads their pages.
func pagesOf(c *cli.Context, now time.Time) (pageFunc, error) {
	query := store.Query{
		Service: c.String("service"), Name: c.String("name"), State: c.String("state"), Issuer: c.String("issuer"), Now: now,
	}
	if within := spanOf(c, "expires-within"); within > 0 {
		query.ExpiresBefore, query.SoonestFirst = now.Add(within), true
	}
	prefix := c.String("search")
	if prefix == "" {
		return func(ctx context.Context, record *ca.Record, limit int, cursor string) ([]store.Certificate, string, error) {
			query.Limit, query.Cursor = limit, cursor
			return record.List(ctx, query)
		}, nil
	}
	if (query != store.Query{Now: now}) {
		return nil, usagef("--search stands alone: no --service, --name, --state, --issuer or --expires-within with it")
	}
	return func(ctx context.Context, record *ca.Record, limit int, cursor string) ([]store.Certificate, string, error) {
		return record.Search(ctx, store.Search{Prefix: prefix, Limit: limit, Cursor: cursor})
	}, nil
}

func rowsOf(page []store.Certificate, now time.Time) []ca.Row {
	rows := make([]ca.Row, len(page))
	for i, cert := range page {
		rows[i] = ca.NewRow(cert, now)
	}
	return rows
}
