package main

import (
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/records"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/printable"
)

func logShowCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "show",
		Usage: "print the events of the record: what was issued, revoked and refused, and by which rule",
		Description: `Prints the newest events, the oldest of them first. --kind refused shows what authenticated callers
were refused, with the rule; refusals beyond 100 an hour and caller are only counted, and requests
that prove nothing are in the metrics. With --after it goes on behind the event of that number.`,
		Flags: []cli.Flag{
			flags.Shared(flags.Dir),
			&cli.StringFlag{Name: "kind", Usage: "only this kind: " + strings.Join(kinds.All(), ", ")},
			&cli.Int64Flag{Name: "after", Value: -1, DefaultText: "the newest", Usage: "events behind the one with this `NUMBER`, oldest first; 0 begins at the first"},
			&cli.IntFlag{Name: "limit", Value: 100, Usage: "events to print, 1000 at most"},
			output.Flag(output.Table, output.JSON),
		},
		Action: u.Action(runLogShow),
	}
}

// runLogShow prints one page of events, the newest ones unless it is told where to begin.
func runLogShow(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	kind, limit := c.String("kind"), c.Int("limit")
	switch {
	case kind != "" && !slices.Contains(kinds.All(), kind):
		return ui.UsageErrorf("--kind %q: want one of %s", printable.Clean(kind), strings.Join(kinds.All(), ", "))
	case limit < 1 || limit > record.MaxPage:
		return ui.UsageErrorf("--limit %d: want 1 to %d", limit, record.MaxPage)
	}
	format, err := output.Of(c, output.Table, output.JSON)
	if err != nil {
		return err
	}
	rec, err := records.Open(c.Context, c.String(flags.Dir), flags.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = rec.Close() }() // read only
	var events []record.Event
	if after := c.Int64("after"); after >= 0 {
		events, err = rec.Events(c.Context, kind, after, limit)
	} else {
		events, err = rec.LatestEvents(c.Context, kind, limit)
	}
	if err != nil {
		return err
	}
	if err := writeEvents(u, format, events); err != nil {
		return err
	}
	if len(events) == 0 {
		u.Infof("no event is like that")
	}
	return nil
}

// writeEvents prints what a table has room for; JSON has all.
func writeEvents(u *ui.UI, format string, events []record.Event) error {
	if format == output.JSON {
		if events == nil {
			events = []record.Event{} // a list, not null
		}
		return u.JSON(map[string]any{"schema_version": 1, "events": events})
	}
	t := u.NewTable("NUMBER", "TIME", "KIND", "CALLER", "SERVICE", "SERIAL", "RULE", "DETAIL")
	for _, e := range events {
		serial := ""
		if e.Serial != "" {
			serial = certs.HexSerial(e.Serial)
		}
		t.Row(strconv.FormatInt(e.ID, 10), humantime.Stamp(e.At), e.Kind, e.Caller, e.Service, serial, e.Rule, e.Detail)
	}
	return t.Flush()
}
