package operate

import (
	"errors"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// askEvery is the time between two looks at the authority while root rotate waits.
const askEvery = time.Second

// rotateCommand declares root rotate, which takes all steps.
func rotateCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "rotate",
		Usage: "take all steps to a new root: add, activate, remove the old one",
		Description: `Takes the next step, if the authority allows it. With --wait it goes on until the old root is
gone: after add it waits until every service trusts the new root, after activate until none
uses the old one, and says how many of how many have followed and when the rest is due.

It keeps nothing of its own: the stages are in the record. So it can be interrupted at any
moment, and run again here or elsewhere. Run again when the rotation is complete, it begins the
next one: a timer or a unit that restarts must not run it.`,
		Flags: append(controlFlags(),
			&cli.BoolFlag{Name: flagWait, Usage: "wait between the steps, until the old root is removed"},
			acceptFlag(),
			output.Flag(output.Table, output.JSON),
		),
		CustomHelpTemplate: help.Head + statuses,
		Action:             u.Action(runRotate),
	}
}

// runRotate looks at the stages, takes the step that leads on, and begins anew. A step that is
// refused because services would be cut off is tried again each second with --wait; without it
// the refusal is the end, as for a single step. A refusal without services is the end as well,
// unless somebody else has changed the trust meanwhile: then the next step is chosen anew, so
// that two who rotate at once make one rotation.
//
// Between two steps nothing is kept here, so an interrupt loses nothing.
func runRotate(u *ui.UI, c *cli.Context) error {
	authority, format, err := begin(u, c, 0, 0)
	if err != nil {
		return err
	}
	defer authority.Close()
	status, err := authority.TrustStatus(c.Context)
	if err != nil {
		return err
	}
	var told string
	for first := true; ; first = false {
		change := nextStep(status, first)
		if change.Step == "" {
			break
		}
		change.Accept, change.Version = c.StringSlice(flagAccept), status.Version
		next, err := authority.ChangeTrust(c.Context, change)
		refused, waits := errors.AsType[*refusal](err)
		switch {
		case err == nil:
			u.Infof("%s: done", stepText(change))
			status, told = next, ""
			if !c.Bool(flagWait) {
				return finishRotate(u, status, format)
			}
			continue
		case !waits, !c.Bool(flagWait):
			return printRefusal(u, err, format)
		}
		if len(refused.holders) == 0 { // somebody else may have taken the step
			if next, err = authority.TrustStatus(c.Context); err != nil {
				return err
			}
			if next.Version == status.Version {
				return printRefusal(u, refused, format)
			}
			status = next
			continue
		}
		if who := stepapi.ServicesOf(refused.holders); who != told { // each change is one line
			u.Infof("%s: %d of %d have followed, the last is due in %s; waiting for %s",
				stepText(change), status.Holders-len(refused.holders), status.Holders, lastDue(change, refused.holders, time.Now()), who)
			told = who
		}
		select {
		case <-c.Done():
			return c.Err()
		case <-time.After(askEvery):
		}
		if status, err = authority.TrustStatus(c.Context); err != nil {
			return err
		}
	}
	return finishRotate(u, status, format)
}

// finishRotate prints where the rotation is now.
func finishRotate(u *ui.UI, status stepapi.TrustStatus, format string) error {
	if format == output.JSON {
		return u.JSON(status)
	}
	return printRoots(u, status)
}

// nextStep is the step that leads on from a status: remove an old root, activate a staged one,
// or, if there is one root only and this is the begin, add one. Without a step the rotation is
// complete.
func nextStep(s stepapi.TrustStatus, begin bool) stepapi.TrustChange {
	for _, r := range s.Roots {
		if r.Stage == stepapi.StageStaged {
			return stepapi.TrustChange{Step: stepapi.StepActivate, Certificate: r.Fingerprint}
		}
	}
	for _, r := range s.Roots {
		if r.Stage == stepapi.StageOld {
			return stepapi.TrustChange{Step: stepapi.StepRemove, Certificate: r.Fingerprint}
		}
	}
	if begin {
		return stepapi.TrustChange{Step: stepapi.StepAdd}
	}
	return stepapi.TrustChange{}
}

// stepText is a step in the words of the command line.
func stepText(c stepapi.TrustChange) string {
	if c.Certificate == "" {
		return c.Step + " root"
	}
	return c.Step + " root " + short(c.Certificate)
}

// lastDue is the time until the last of them has followed at the latest: by its next renewal,
// or, if it is overdue or stays with its certificate, by the end of that certificate.
func lastDue(change stepapi.TrustChange, waiting []stepapi.Holder, now time.Time) string {
	var due time.Time
	for _, h := range waiting {
		at := h.NextRenewal
		if !at.After(now) || change.Step == stepapi.StepRemove {
			at = h.Expires
		}
		if at.After(due) {
			due = at
		}
	}
	return humantime.Short(humantime.Between(now, due))
}
