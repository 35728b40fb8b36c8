package cacmd

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/records"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/internal/durable"
)

// acmeCommand declares acme eab with its three commands, which keep the keys of external
// account binding (RFC 8555 §7.3.4). They change the record; a running authority sees the
// change at the next request. docs/acme.md explains what such a key is for.
func acmeCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "acme",
		Usage: "make, list and revoke keys that bind ACME accounts (external account binding)",
		Subcommands: []*cli.Command{{
			Name:  "eab",
			Usage: "keys for external account binding (RFC 8555 §7.3.4)",
			Subcommands: []*cli.Command{
				{
					Name:  "create",
					Usage: "make a key that binds one ACME account to profiles",
					Description: `Prints the key id (kid) and the HMAC key that an ACME client wants when it registers. The first
account that shows the key is bound to it, and may order certificates of these profiles only, for
names that it proves as always. With require_eab: true in pki.yaml, there is no other way to an
account. The HMAC key is a secret: it is printed once, here or into the file of --out (0600).`,
					Flags: []cli.Flag{
						flags.Shared(flags.Dir),
						&cli.StringSliceFlag{Name: "profile", Usage: "a `SERVICE` with acme: true that the account may have certificates of; may be repeated"},
						values.DurationFlag("lifetime", ca.DefaultEABLife, "how long an account may be bound"),
						&cli.StringFlag{Name: "note", Usage: "`TEXT` to remember the key by"},
						&cli.StringFlag{Name: "out", Usage: "new `FILE` for the key, in place of standard output"},
						output.Flag(output.Text, output.JSON),
					},
					Action: u.Action(runEABCreate),
				},
				{
					Name:        "list",
					Usage:       "list the keys, without their secrets",
					Description: `A key is unused, bound (to the account shown), expired before it was used, or revoked.`,
					Flags:       []cli.Flag{flags.Shared(flags.Dir), output.Flag(output.Table, output.JSON)},
					Action:      u.Action(runEABList),
				},
				{
					Name:      "revoke",
					Usage:     "revoke a key, and what its account may order",
					ArgsUsage: "KID",
					Description: `An unused key binds nothing any more, and the account of a used one can order nothing more. The
certificates that it has stay valid: "artstore-pki revoke" is for those.`,
					Flags:  []cli.Flag{flags.Shared(flags.Dir)},
					Action: u.Action(runEABRevoke),
				},
			},
		}},
	}
}

// runEABCreate makes a key and prints it, or writes it to the new file of --out. The record
// keeps the key, and no command prints it again. ca.Record.NewEABKey refuses services that
// have no acme: true.
//
// A key that could not be printed or written is revoked at once: nobody has it, and in the
// list it would look as if somebody could use it. A crash between the two leaves such a key
// as unused until it expires.
func runEABCreate(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	format, err := output.Of(c, output.Text, output.JSON)
	if err != nil {
		return err
	}
	if len(c.StringSlice("profile")) == 0 {
		return ui.UsageErrorf("--profile is missing: name a service with acme: true")
	}
	rec, err := records.Open(c.Context, c.String(flags.Dir), flags.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = rec.Close() }() // what it wrote is committed
	// k is what the list shows of the key, and key is the secret itself.
	k, key, err := rec.NewEABKey(c.Context, ca.EABOptions{Profiles: c.StringSlice("profile"), Life: values.DurationOf(c, "lifetime"), Note: c.String("note")})
	if err != nil {
		return ui.WithHint(err, "profiles are in pki.yaml of --%s", flags.Dir)
	}
	text := fmt.Sprintf("kid:      %s\nhmac-key: %s\n", k.ID, key.Expose())
	if format == output.JSON {
		text = fmt.Sprintf("{\n  \"kid\": %q,\n  \"hmac_key\": %q\n}\n", k.ID, key.Expose())
	}
	if out := c.String("out"); out == "" {
		_, err = fmt.Fprint(u.Out, text)
	} else {
		err = durable.WriteNew(out, []byte(text), durable.Private)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("handing out the key: %w", err), rec.RevokeEABKey(c.Context, k.ID))
	}
	u.Infof("the key binds one account to %s, until %s", strings.Join(k.Profiles, ", "), k.Expires.Format(time.RFC3339))
	return nil
}

// eabRow is a key as it is listed.
type eabRow struct {
	Kid string `json:"kid"`
	// Status is unused, bound, expired or revoked.
	Status string `json:"status"`
	// Profiles are the services that the account may have certificates of.
	Profiles []string `json:"profiles"`
	Note     string   `json:"note,omitempty"`
	// Expires is the last moment at which the key can bind an account.
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	// Account is the account that is bound, "" if none is.
	Account string `json:"account,omitempty"`
	// Bound and Revoked are nil where that did not happen.
	Bound   *time.Time `json:"bound,omitempty"`
	Revoked *time.Time `json:"revoked,omitempty"`
}

// newEABRow returns the row of a key with its status at now. Revoked counts before bound,
// and bound before expired: the end of a key ends no account that it has bound.
func newEABRow(k record.EABKey, now time.Time) eabRow {
	r := eabRow{Kid: k.ID, Status: "unused", Profiles: k.Profiles, Note: k.Note, Created: k.Created, Expires: k.Expires, Account: k.Account}
	if !k.Bound.IsZero() {
		r.Bound = &k.Bound
	}
	if !k.Revoked.IsZero() {
		r.Revoked = &k.Revoked
	}
	switch {
	case r.Revoked != nil:
		r.Status = "revoked"
	case r.Bound != nil:
		r.Status = "bound"
	case now.After(k.Expires):
		r.Status = "expired"
	}
	return r
}

// runEABList prints all keys without their secrets. There are few of them, one for each
// account, so there are no pages.
func runEABList(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
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
	list, err := rec.EABKeys(c.Context)
	if err != nil {
		return err
	}
	rows := make([]eabRow, 0, len(list))
	for _, k := range list {
		rows = append(rows, newEABRow(k, time.Now()))
	}
	if format == output.JSON {
		return u.JSON(map[string]any{"schema_version": 1, "keys": rows})
	}
	return eabTable(u, rows)
}

// eabTable prints the rows as a table, with a dash for the account of a key that is not bound.
func eabTable(u *ui.UI, rows []eabRow) error {
	t := u.NewTable("KID", "STATUS", "EXPIRES", "PROFILES", "ACCOUNT", "NOTE")
	for _, r := range rows {
		account := r.Account
		if account == "" {
			account = "-"
		}
		t.Row(r.Kid, r.Status, r.Expires.Format(time.RFC3339), strings.Join(r.Profiles, ","), account, r.Note)
	}
	return t.Flush()
}

// runEABRevoke revokes a key: it binds no account any more, and an account that it has bound
// orders nothing more. The revocation is committed before the command returns. A key that is
// unknown and one that was revoked before are the same error, because the record does not
// tell them apart.
func runEABRevoke(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 1, 1); err != nil {
		return err
	}
	rec, err := records.Open(c.Context, c.String(flags.Dir), flags.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = rec.Close() }() // what it wrote is committed
	kid := c.Args().First()
	switch err := rec.RevokeEABKey(c.Context, kid); {
	case errors.Is(err, record.ErrNotFound):
		return ui.WithHint(fmt.Errorf("revoking external account key %.64q: there is none, or it was revoked before", kid), "artstore-pki acme eab list shows all keys")
	case err != nil:
		return err
	}
	u.Infof("revoked %s", kid)
	return nil
}
