package cacmd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// copyTalks is the shortest time between two lines of a long copy that say how far it is.
const copyTalks = 2 * time.Second

// migrateCommand declares migrate. Both places are required flags and no arguments, so that
// the direction of the copy stands on the command line.
func migrateCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "migrate",
		Usage: "copy the record between SQLite and PostgreSQL",
		Description: `Copies all of a record into an empty place, in either direction: a file, or the postgres://
URL of a database (see database: in pki.yaml). Stop the authority first; a source that
changes meanwhile is an error. It is one transaction: until it ends well, the target has
nothing. The source stays as it is; name the new place in pki.yaml afterwards.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Required: true, Usage: "`FILE` or URL that has the record"},
			&cli.StringFlag{Name: "to", Required: true, Usage: "`FILE` or URL that gets it"},
		},
		Action: u.Action(runMigrate),
	}
}

// runMigrate copies a record from one database to another, in either direction, and changes
// no configuration: the operator names the new place in pki.yaml when the copy has ended
// well. It prints the number of rows of each table.
//
// store.Copy writes one transaction. If the command ends before its commit, also by a kill,
// the target has no rows. A target that has a record, and a source that was written to
// meanwhile, are refused; both places stay as they were. A URL that store.Check refuses,
// such as one with a password in it, is an error of the command line.
func runMigrate(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	from, to := c.String("from"), c.String("to")
	for name, where := range map[string]string{"from": from, "to": to} {
		if err := store.Check(where); err != nil {
			return ui.UsageErrorf("--%s: %w", name, err)
		}
	}
	copied, err := copyRecord(c.Context, u, from, to)
	switch {
	case errors.Is(err, store.ErrNotEmpty):
		return ui.WithHint(err, "a record is copied into an empty place only; nothing was written")
	case errors.Is(err, store.ErrChanged):
		return ui.WithHint(err, "nothing was written to the target; try again once no authority uses the source")
	case err != nil:
		return err
	}
	for _, t := range copied {
		u.Infof("%s: %d", t.Table, t.Rows)
	}
	u.Infof("copied and counted; next: name the new place under database: in pki.yaml, then start the authority")
	return nil
}

// copyRecord opens both places, copies the record, and returns the rows of each table. It
// says from time to time how far it is, because a large record takes minutes. The source
// must have a record (store.ErrNoRecord). The schema is made in the target, also if a record
// is there already: store.Copy then refuses a target that is not empty.
func copyRecord(ctx context.Context, u *ui.UI, from, to string) (_ []store.CopyProgress, err error) {
	source, err := store.Open(ctx, from)
	if err != nil {
		return nil, fmt.Errorf("opening the source: %w", err)
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	target, err := store.Create(ctx, to)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	said := time.Now()
	return store.Copy(ctx, source, target, func(c store.CopyProgress) {
		if now := time.Now(); now.Sub(said) >= copyTalks {
			said = now
			u.Infof("copying %s: %d", c.Table, c.Rows)
		}
	})
}
