package operate

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/credentials"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/hints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/records"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// waitGrace is how long --wait goes on after the time of an order: a service may draw the last
// moment of it, and renews then.
const waitGrace = 5 * time.Second

// Renewal returns the command renewal.
func Renewal(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "renewal",
		Usage: "make services renew before it is their time, and see who has not followed",
		Subcommands: []*cli.Command{
			{
				Name:  "force",
				Usage: "order that all certificates that match renew within a time",
				Description: `Several of --issuer, --service, --key-type and --serial restrict the order together. Services
that wait at the authority hear of it at once and spread their renewals over the time; clients of
ACME hear of it by renewal information (ARI). Nothing is revoked.

With --wait it says how many of how many have renewed until all have, or the time is over; then
those who have not followed are named, with status 3. It can be interrupted and run again: an
order that is open for the same certificates goes on.`,
				Flags: append(recordFlags(),
					&cli.StringFlag{Name: "issuer", Usage: "certificates of this intermediate: its common name, fingerprint, or the beginning of its subject key id in `HEX`"},
					&cli.StringFlag{Name: flagService, Usage: "certificates of this `SERVICE`"},
					&cli.StringFlag{Name: "key-type", Usage: "certificates with keys of this `KIND`, such as EC-P256"},
					&cli.StringFlag{Name: "serial", Usage: "the certificate with this `SERIAL`, or what it was renewed to"},
					&cli.BoolFlag{Name: "all", Usage: "all certificates"},
					&cli.GenericFlag{Name: "within", Value: &values.Duration{}, DefaultText: "none", Usage: "how long the fleet may take, a `TIME` such as 30s or 2h"},
					&cli.StringFlag{Name: "note", Usage: "`TEXT` for the record"},
					&cli.BoolFlag{Name: flagWait, Usage: "wait until all have renewed, or the time is over"},
					&cli.BoolFlag{Name: flagDryRun, Usage: "say whom the order is for, and order nothing"},
					output.Flag(output.Table, output.JSON)),
				CustomHelpTemplate: help.Head + statuses,
				Action:             u.Action(runForce),
			},
			{
				Name:        "status",
				Usage:       "show the orders that are open, and who has not followed",
				Description: "An order is open until its time is over, and everybody has renewed or holds no valid certificate.",
				Flags:       append(recordFlags(), output.Flag(output.Table, output.JSON)),
				Action:      u.Action(runRenewalStatus),
			},
		},
	}
}

// fleet takes orders to renew: the record in a state directory, or a running authority that is
// asked over mutual TLS.
type fleet interface {
	ForceRenewal(ctx context.Context, order stepapi.RenewalOrder) (stepapi.RenewalStatus, error)
	Renewals(ctx context.Context) ([]stepapi.RenewalStatus, error)
}

// openFleet returns what the flags name, as open does. The caller calls release at the end.
func openFleet(u *ui.UI, c *cli.Context) (f fleet, release func(), err error) {
	if c.String(credentials.Cert) != "" {
		authority, err := openRemote(c)
		if err != nil {
			return nil, nil, err
		}
		return remoteFleet{authority.Client}, authority.Close, nil
	}
	if flags.CAURLGiven(u, c) {
		return nil, nil, ui.UsageErrorf("--%s goes with --%s: without a certificate, the order is given to the authority in --%s", flags.CAURL, credentials.Cert, flags.Dir)
	}
	rec, err := records.Open(c.Context, c.String(flags.Dir), flags.Dir)
	if err != nil {
		return nil, nil, err
	}
	return localFleet{rec}, func() { _ = rec.Close() }, nil // an order is committed before its call returns
}

// localFleet is the record in a state directory. A running authority learns of an order within a
// second, and needs no signal for it.
type localFleet struct{ *ca.Record }

// ForceRenewal implements fleet. The event of the record names the operator as its caller.
func (l localFleet) ForceRenewal(ctx context.Context, order stepapi.RenewalOrder) (stepapi.RenewalStatus, error) {
	status, err := l.Record.ForceRenewal(ctx, order)
	return status, ui.WithHint(err, "artstore-pki list --state valid prints what there is")
}

// remoteFleet is a running authority. The event of the record names the certificate of the
// operator as its caller.
type remoteFleet struct{ client *enroll.Client }

// ForceRenewal implements fleet. The authority answers when the order is committed, and has told
// those who wait by then.
func (r remoteFleet) ForceRenewal(ctx context.Context, order stepapi.RenewalOrder) (stepapi.RenewalStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var status stepapi.RenewalStatus
	err := r.client.Operate(ctx, "ordering a renewal", stepapi.PathRenewals, order, &status)
	return status, hints.Refused(err, hintOperators)
}

// Renewals implements fleet.
func (r remoteFleet) Renewals(ctx context.Context) ([]stepapi.RenewalStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var list []stepapi.RenewalStatus
	err := r.client.Operate(ctx, "reading orders to renew", stepapi.PathRenewals, nil, &list)
	return list, hints.Refused(err, hintOperators)
}

// orderOf returns the order of the command line. None of the restrictions must not mean all,
// and one of them beside --all is a contradiction. Issuer and serial are words that the authority
// resolves: it knows the certificates, and a command elsewhere does not.
func orderOf(c *cli.Context) (stepapi.RenewalOrder, error) {
	o := stepapi.RenewalOrder{
		Issuer: c.String("issuer"), Service: c.String(flagService), KeyType: c.String("key-type"), Serial: c.String("serial"),
		Note: c.String("note"), DryRun: c.Bool(flagDryRun),
	}
	restricted := o.Issuer+o.Service+o.KeyType+o.Serial != ""
	if restricted == c.Bool("all") {
		return o, flags.SeeHelp(c, ui.UsageErrorf("want --issuer, --service, --key-type or --serial, or --all"))
	}
	within := values.DurationOf(c, "within")
	if within <= 0 {
		return o, ui.UsageErrorf("--within is missing: how long may the fleet take?")
	}
	if o.DryRun && c.Bool(flagWait) {
		return o, ui.UsageErrorf("--%s does not go with --%s", flagWait, flagDryRun)
	}
	o.Within = within.String()
	return o, nil
}

// runForce gives an order, or goes on with the one that is open for the same certificates, and
// follows it with --wait.
//
// Nothing is kept here: who has followed is computed from the record, wherever it is asked. So an
// interrupt loses nothing, and the same command line goes on with the order that it has given
// before. Without --wait each run is an order of its own, because a script that orders twice means
// two orders. Status 3 is for scripts that go on to revoke the issuer: they must not, while
// somebody still needs it.
func runForce(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	format, err := output.Of(c, output.Table, output.JSON)
	if err != nil {
		return err
	}
	order, err := orderOf(c)
	if err != nil {
		return err
	}
	fleet, release, err := openFleet(u, c)
	if err != nil {
		return err
	}
	defer release()
	status, open := stepapi.RenewalStatus{}, false
	if c.Bool(flagWait) {
		if status, open, err = openOrder(c.Context, fleet, order); err != nil {
			return err
		}
	}
	if open {
		u.Infof("order %d of %s goes on", status.ID, stamp(status.At))
	} else if status, err = fleet.ForceRenewal(c.Context, order); err != nil {
		return err
	}
	if c.Bool(flagWait) {
		if status, err = follow(c.Context, u, fleet, status); err != nil {
			return err
		}
	}
	if format == output.JSON {
		err = u.JSON(status)
	} else {
		err = printOrder(u, status)
	}
	if err == nil && c.Bool(flagWait) && len(status.Pending) > 0 {
		return ui.ExitStatus(exitRefused)
	}
	return err
}

// openOrder returns the newest order for the same certificates whose time is not over, and
// that somebody has not followed yet. One that all have followed is history: whoever orders
// again means the certificates of now.
func openOrder(ctx context.Context, f fleet, order stepapi.RenewalOrder) (stepapi.RenewalStatus, bool, error) {
	list, err := f.Renewals(ctx)
	if err != nil {
		return stepapi.RenewalStatus{}, false, err
	}
	for _, s := range list {
		same := s.Order
		same.Within, same.Note, same.DryRun = order.Within, order.Note, order.DryRun
		if same == order && len(s.Pending) > 0 && time.Now().Before(s.By) {
			return s, true, nil
		}
	}
	return stepapi.RenewalStatus{}, false, nil
}

// follow looks at an order each second until nobody is left who has not renewed, or its time is
// over. Each change is one line. An order that is not open any more was followed by all.
func follow(ctx context.Context, u *ui.UI, f fleet, s stepapi.RenewalStatus) (stepapi.RenewalStatus, error) {
	for told := -1; ; {
		if s.Renewed != told {
			text := fmt.Sprintf("order %d: %d of %d have renewed", s.ID, s.Renewed, s.Matched)
			if len(s.Pending) > 0 {
				text += fmt.Sprintf("; %s, waiting for %s", until(s.By, time.Now()), stepapi.ServicesOf(s.Pending))
			}
			u.Infof("%s", text)
			told = s.Renewed
		}
		if len(s.Pending) == 0 || time.Now().After(s.By.Add(waitGrace)) {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-time.After(askEvery):
		}
		list, err := f.Renewals(ctx)
		if err != nil {
			return s, err
		}
		id := s.ID
		s.Pending, s.Renewed = nil, s.Matched
		for _, now := range list {
			if now.ID == id {
				s = now
			}
		}
	}
}

// runRenewalStatus prints the orders that are open.
func runRenewalStatus(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	format, err := output.Of(c, output.Table, output.JSON)
	if err != nil {
		return err
	}
	fleet, release, err := openFleet(u, c)
	if err != nil {
		return err
	}
	defer release()
	list, err := fleet.Renewals(c.Context)
	switch {
	case err != nil:
		return err
	case format == output.JSON:
		return u.JSON(list)
	case len(list) == 0:
		u.Infof("no order is open")
	}
	for _, s := range list {
		if err := printOrder(u, s); err != nil {
			return err
		}
	}
	return nil
}

// printOrder prints an order, and who has not followed.
func printOrder(u *ui.UI, s stepapi.RenewalStatus) error {
	t := u.NewTable("ORDER", "FOR", "GIVEN", "BY", "RENEWED", "CALLER")
	id := fmt.Sprint(s.ID)
	if s.ID == 0 {
		id = "none (dry run)"
	}
	t.Row(id, wanted(s.Order), stamp(s.At), stamp(s.By), fmt.Sprintf("%d of %d", s.Renewed, s.Matched), s.Caller)
	if err := t.Flush(); err != nil || len(s.Pending) == 0 {
		return err
	}
	return printHolders(u, fmt.Sprintf("%d of %d have not renewed:", len(s.Pending), s.Matched), s.Pending)
}

// wanted says which certificates an order is for.
func wanted(o stepapi.RenewalOrder) (text string) {
	for _, part := range []struct{ what, value string }{{"issuer", o.Issuer}, {"service", o.Service}, {"keys", o.KeyType}, {"serial", o.Serial}} {
		if part.value == "" {
			continue
		}
		if text != "" {
			text += ", "
		}
		text += part.what + " " + part.value
	}
	if text == "" {
		return "all"
	}
	return text
}
