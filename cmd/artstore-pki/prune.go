package main

import (
	"errors"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/records"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
)

func pruneCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "prune",
		Usage: "remove certificates that expired long ago from the record",
		Description: `Removes certificates that expired before --older-than, with their revocations and events; a lineage
goes when all of it has expired. The log stays verifiable: it keeps their places and tells of the
pruning. It works beside a running authority, in short transactions. An SQLite file keeps its size;
the room is used again.`,
		Flags: []cli.Flag{
			flags.Shared(flags.Dir),
			&cli.GenericFlag{Name: "older-than", Value: &values.Duration{}, DefaultText: "none", Usage: "remove what expired longer ago than this `TIME`, such as 90d or 1y; 72h at least"},
			&cli.BoolFlag{Name: "dry-run", Usage: "only say how many"},
		},
		Action: u.Action(runPrune),
	}
}

// runPrune has no default for the age: what is removed does not come back.
func runPrune(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	age := values.DurationOf(c, "older-than")
	if age == 0 {
		return flags.SeeHelp(c, ui.UsageErrorf("missing --older-than"))
	}
	record, err := records.Open(c.Context, c.String(flags.Dir), flags.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = record.Close() }() // what is removed is committed
	before := time.Now().Add(-age)
	if c.Bool("dry-run") {
		n, err := record.Prunable(c.Context, before)
		if err != nil {
			return err
		}
		u.Infof("prune: %d certificates would be removed", n)
		return nil
	}
	n, err := record.Prune(c.Context, before)
	if n > 0 || err == nil {
		u.Infof("prune: %d certificates removed", n)
	}
	if errors.Is(err, store.ErrUnsequenced) {
		return ui.WithHint(err, "the running authority gives places within a second: try again, or start it once")
	}
	return err
}
