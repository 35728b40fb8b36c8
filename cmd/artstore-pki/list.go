package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/printable"
)

func listCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list certificates in the record",
		Description: `Prints one page of what was ever issued, latest expiry first. If there is more, the cursor of
the next page goes to stderr.`,
		Flags: []cli.Flag{
			dirFlag(),
			&cli.StringFlag{Name: "service", Usage: "only this `SERVICE`"},
			&cli.StringFlag{Name: "name", Usage: "only certificates with this `NAME` (DNS, IP or URI)"},
			&cli.StringFlag{Name: "state", Usage: "only valid, expired or revoked ones"},
			&cli.StringFlag{Name: "issuer", Usage: "only from the intermediate with this subject key id, in `HEX`"},
			&cli.GenericFlag{Name: "expires-within", Value: &span{}, DefaultText: "any", Usage: "only those that end within this `TIME`, such as 36h or 14d; soonest first"},
			&cli.IntFlag{Name: "limit", Value: 100, Usage: "rows per page, 1000 at most"},
			&cli.StringFlag{Name: "cursor", Usage: "continue where the page before ended"},
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
	query := store.Query{
		Service: c.String("service"), Name: c.String("name"), State: c.String("state"), Issuer: c.String("issuer"),
		Limit: c.Int("limit"), Cursor: c.String("cursor"), Now: now,
	}
	if within := spanOf(c, "expires-within"); within > 0 {
		query.ExpiresBefore, query.SoonestFirst = now.Add(within), true
	}
	record, err := openRecord(c.Context, c.String(flagDir), flagDir)
	if err != nil {
		return err
	}
	defer func() { _ = record.Close() }() // read only
	page, next, err := record.List(c.Context, query)
	if err != nil {
		return err
	}
	if err := u.writePage(c.String(flagOutput), page, now); err != nil {
		return err
	}
	if next != "" {
		u.say("more: --cursor %s", next)
	}
	return nil
}

func (u *ui) writePage(format string, page []store.Certificate, now time.Time) error {
	rows := make([]row, len(page))
	for i, cert := range page {
		rows[i] = newRow(cert, now)
	}
	switch format {
	case outputJSON:
		return u.writeJSON(map[string]any{"schema_version": 1, "certificates": rows})
	case outputCSV:
		return u.writeCSV(rows)
	case outputTable:
		return u.writeTable(rows, now)
	}
	return usagef("--%s %q: want %s, %s or %s", flagOutput, printable.Clean(format), outputTable, outputJSON, outputCSV)
}

func (u *ui) writeJSON(v any) error {
	enc := json.NewEncoder(u.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func (u *ui) writeCSV(rows []row) error {
	w := csv.NewWriter(u.out)
	_ = w.Write([]string{"serial", "service", "state", "names", "not_before", "not_after", "kind", "caller", "lineage", "issuer"}) // Flush keeps the error
	for _, r := range rows {
		_ = w.Write([]string{r.Serial, printable.Clean(r.Service), r.State, printable.Clean(strings.Join(r.Names, " ")),
			r.NotBefore.Format(time.RFC3339), r.NotAfter.Format(time.RFC3339), r.Kind, printable.Clean(r.Caller), r.Lineage, r.Issuer})
	}
	w.Flush()
	return w.Error()
}

func (u *ui) writeTable(rows []row, now time.Time) error {
	w := tabwriter.NewWriter(u.out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "SERIAL\tSERVICE\tSTATE\tENDS\tLEFT\tHOW\tNAMES") // Flush keeps the error
	for _, r := range rows {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.SerialHex, printable.Clean(r.Service), r.State,
			r.NotAfter.Local().Format(time.DateTime), left(r.NotAfter.Sub(now)), r.Kind, printable.Clean(strings.Join(r.Names, " ")))
	}
	return w.Flush()
}
