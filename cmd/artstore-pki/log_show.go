package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/printable"
)

func logShowCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "show",
		Usage: "print the events of the record: what was issued, revoked and refused, and by which rule",
		Description: `Prints the newest events, the oldest of them first. --kind refused shows what authenticated callers
were refused, with the rule; refusals beyond 100 an hour and caller are only counted, and requests
that prove nothing are in the metrics. With --after it goes on behind the event of that number.`,
		Flags: []cli.Flag{
			dirFlag(),
			&cli.StringFlag{Name: "kind", Usage: "only this kind: " + strings.Join(store.EventKinds(), ", ")},
			&cli.Int64Flag{Name: "after", Value: -1, DefaultText: "the newest", Usage: "events behind the one with this `NUMBER`, oldest first; 0 begins at the first"},
			&cli.IntFlag{Name: "limit", Value: 100, Usage: "events to print, 1000 at most"},
			outputFlag(outputTable, outputJSON),
		},
		Action: u.runLogShow,
	}
}

func (u *ui) runLogShow(c *cli.Context) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	kind, limit, format := c.String("kind"), c.Int("limit"), c.String(flagOutput)
	switch {
	case kind != "" && !slices.Contains(store.EventKinds(), kind):
		return usagef("--kind %q: want one of %s", printable.Clean(kind), strings.Join(store.EventKinds(), ", "))
	case limit < 1 || limit > store.MaxPage:
		return usagef("--limit %d: want 1 to %d", limit, store.MaxPage)
	case format != outputTable && format != outputJSON:
		return usagef("--%s %q: want %s or %s", flagOutput, printable.Clean(format), outputTable, outputJSON)
	}
	record, err := openRecord(c.Context, c.String(flagDir), flagDir)
	if err != nil {
		return err
	}
	defer func() { _ = record.Close() }() // read only
	var events []store.Event
	if after := c.Int64("after"); after >= 0 {
		events, err = record.Events(c.Context, kind, after, limit)
	} else {
		events, err = record.LatestEvents(c.Context, kind, limit)
	}
	if err != nil {
		return err
	}
	if err := u.writeEvents(format, events); err != nil {
		return err
	}
	if len(events) == 0 {
		u.say("no event is like that")
	}
	return nil
}

func (u *ui) writeEvents(format string, events []store.Event) error {
	if format == outputJSON {
		if events == nil {
			events = []store.Event{} // a list, not null
		}
		return u.writeJSON(map[string]any{"schema_version": 1, "events": events})
	}
	w := tabwriter.NewWriter(u.out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "NUMBER\tTIME\tKIND\tCALLER\tSERVICE\tSERIAL\tRULE\tDETAIL") // Flush keeps the error
	for _, e := range events {
		serial := ""
		if e.Serial != "" {
			serial = pemfile.HexSerial(e.Serial)
		}
		_, _ = fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.ID, e.At.Local().Format(time.DateTime), e.Kind,
			printable.Clean(e.Caller), printable.Clean(e.Service), serial, printable.Clean(e.Rule), printable.Clean(e.Detail))
	}
	return w.Flush()
}
