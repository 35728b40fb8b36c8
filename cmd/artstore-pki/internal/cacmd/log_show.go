package cacmd

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

// logShowCommand declares log show. The default of --after is -1 and stands for "the newest
// events": 0 is a position, in front of the first event.
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

// runLogShow prints one page of events, oldest first: the newest ones, or with --after those
// behind a number. A program that follows the record prints a page, and asks again with
// the number of its last event. An unknown --kind and a --limit outside of 1 to 1000 are
// errors of the command line. No event is no error: it is said on stderr.
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

// writeEvents prints events as a table or as JSON. Both have all fields of an event; the
// serial is hex in the table, as list prints it, and decimal in JSON.
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
