package cacmd

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/statehints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// recordCommand declares record accept. It is a command and no flag of serve, because a
// flag stays in a unit file and would accept the next loss as well
// (docs/design/0014-the-record-is-never-replaced.md).
func recordCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "record",
		Usage: "go on although the record was lost",
		Subcommands: []*cli.Command{{
			Name:  "accept",
			Usage: "accept the loss of a record, as an event of its log",
			Description: `An authority does not start when its record is missing, empty or older than it was, for then
revoked certificates and spent tokens would be good again. Bring the record back or restore a
backup if you can. If not, this command goes on with what is there, or with a new record where
there is none. Without --entries it says what would be lost, and changes nothing. The loss is an
event of the log (accepted). Revoke again what was revoked since; on each replica, run it again.
The record of another authority is never accepted.`,
			Flags: []cli.Flag{
				flags.Shared(flags.Dir), flags.Shared(flags.PasswordFile),
				&cli.Int64Flag{Name: flagEntries, DefaultText: "none", Usage: "accept the loss; `N` is the size of the log that is lost, as this command says it"},
			},
			Action: u.Action(runRecordAccept),
		}},
	}
}

// flagEntries is the size of the log that the marker beside the keys names, in entries.
const flagEntries = "entries"

// runRecordAccept accepts the loss of a record in two steps. The first call, without
// --entries, changes nothing and prints what would be lost, with status 2. The second call
// repeats the number that the first one has printed. A loss that is another one by then is
// refused (ca.ErrOtherLoss), so that nobody accepts what was not looked at.
//
// ca.StateDir.AcceptLoss does the work and writes the event. A crash in it leaves the old marker
// until all else is done: the loss is then to be accepted again.
func runRecordAccept(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	dir := c.String(flags.Dir)
	if !c.IsSet(flagEntries) {
		return showLoss(c.Context, dir)
	}
	// The password is needed: the head of the log that goes on is signed with its key.
	opt := ca.AcceptOptions{Entries: c.Int64(flagEntries)}
	opt.PasswordFile, opt.Password = flags.PasswordSource(u, c)
	head, err := ca.StateDir(dir).AcceptLoss(c.Context, opt)
	switch {
	case errors.Is(err, ca.ErrOtherLoss):
		return ui.WithHint(err, "nothing was changed; without --%s the command says what would be lost", flagEntries)
	case err != nil:
		if hinted := statehints.Loss(err, dir); hinted != nil {
			return hinted
		}
		return err
	}
	u.Infof("record: accepted; its log goes on with %s", head)
	u.Infof("record: revoke again what was revoked since, and remove log.head at the agents")
	return nil
}

// showLoss returns an error that says what would be lost, and never nil: the operator
// meant to go on, and nothing was done. A loss is an error of the command line, whose
// hint has the --entries to repeat. A record of another authority is no loss and cannot be
// accepted, so it gets other advice. Without a loss the error is ca.ErrNothingLost.
func showLoss(ctx context.Context, dir string) error {
	loss, err := ca.StateDir(dir).FindLoss(ctx)
	switch {
	case err != nil:
		return err
	case loss == nil:
		return ca.ErrNothingLost
	case errors.Is(loss.Reason, translog.ErrForeign):
		return statehints.Loss(loss.Reason, dir)
	case loss.Known.Size == 0:
		err = fmt.Errorf("%w; the marker knows of no entries", loss.Reason)
	default:
		err = fmt.Errorf("%w; the marker is of %s and names %d entries", loss.Reason, headTime(loss.Known), loss.Known.Size)
	}
	return ui.WithHint(ui.UsageErrorf("%w", err), "nothing was changed; revocations and spent tokens among the lost entries are forgotten with --%s %d", flagEntries, loss.Known.Size)
}
