package cacmd

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

// pruneCommand declares prune. Its --older-than is a GenericFlag without a default, so that
// runPrune can tell that the flag was not given.
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

// runPrune removes certificates that expired before --older-than, or with --dry-run counts
// them. There is no default for the age, because what is removed does not come back. The
// record decides what goes (ca.Record.Prune): whole lineages only, and nothing that a grace
// after the end could still renew.
//
// It works in short transactions beside a running authority. One that fails or is
// interrupted has removed a part, which is printed, and another run goes on. Events that
// have no place in the log yet cannot be pruned, since the log would have a gap: that is
// store.ErrUnsequenced, which passes within a second while an authority runs.
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
	if n > 0 || err == nil { // an error in the middle leaves what was committed before it
		u.Infof("prune: %d certificates removed", n)
	}
	if errors.Is(err, store.ErrUnsequenced) {
		return ui.WithHint(err, "the running authority gives places within a second: try again, or start it once")
	}
	return err
}
