package cacmd

import (
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca/keychange"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
)

// Flags that say how long the old enrolment key stays good.
const (
	flagKeepOld = "keep-old"
	flagNow     = "now"
)

// enrolmentKeyCommand declares enrolment-key rotate.
func enrolmentKeyCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "enrolment-key",
		Usage: "replace a key that signs enrolment tokens",
		Subcommands: []*cli.Command{{
			Name:  "rotate",
			Usage: "make a new enrolment key, and let the old one end",
			Description: `Makes a key in place of that of a provisioner of type JWK: the private half in secrets/NAME.jwe, the
public one in pki.yaml, where nothing else changes. "artstore-pki token" signs with it at once; send
SIGHUP to "serve" now, because until then it refuses such tokens. Tokens of the old key stay good
for as long as a token can live, so that those which were handed out are not lost. If the key was
stolen, use --now: nothing that it has signed is good after SIGHUP. The change is an event of the
record (enrolment-key). Systems that have the old private key need the new file.`,
			Flags: []cli.Flag{
				flags.Shared(flags.Dir), flags.Shared(flags.PasswordFile),
				&cli.StringFlag{Name: "provisioner", Usage: "replace the key of this `NAME` in pki.yaml (default: the one of type JWK, if there is one only)"},
				values.DurationFlag(flagKeepOld, keychange.LongestToken, "for how much `TIME` tokens of the old key stay good, 30d at most"),
				&cli.BoolFlag{Name: flagNow, Usage: "refuse tokens of the old key as soon as serve has reloaded: the key was stolen"},
				&cli.BoolFlag{Name: "dry-run", Usage: "check everything, name the files that would be changed, and change nothing"},
				output.Flag(output.Text, output.JSON),
			},
			CustomHelpTemplate: help.Head + statusesChange + "\n",
			Action:             u.Action(runEnrolmentKeyRotate),
		}},
	}
}

// enrolmentKeyOutput is what enrolment-key rotate prints with -o json.
type enrolmentKeyOutput struct {
	SchemaVersion int    `json:"schema_version"`
	DryRun        bool   `json:"dry_run"`
	Provisioner   string `json:"provisioner"`
	KeyID         string `json:"key_id,omitempty"` // absent after a dry run
	Replaced      string `json:"replaced"`         // id of the old key
	// Until is when tokens of the old key end; absent means at the next reload.
	Until  *time.Time `json:"until,omitempty"`
	File   string     `json:"file"`   // with the private half
	Config string     `json:"config"` // with the public half
}

// runEnrolmentKeyRotate replaces an enrolment key, which keychange.EnrolmentKey does: the
// record, pki.yaml and the file of the private key change in an order that a crash may end.
// The id of the new key is the data of the command.
func runEnrolmentKeyRotate(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	format, err := output.Of(c, output.Text, output.JSON)
	if err != nil {
		return err
	}
	if c.Bool(flagNow) && c.IsSet(flagKeepOld) {
		return flags.SeeHelp(c, ui.UsageErrorf("--%s and --%s do not go together", flagNow, flagKeepOld))
	}
	opt := keychange.EnrolmentOptions{
		Dir: c.String(flags.Dir), Provisioner: c.String("provisioner"), Keep: values.DurationOf(c, flagKeepOld), DryRun: c.Bool("dry-run"),
	}
	if c.Bool(flagNow) {
		opt.Keep = 0
	}
	if opt.Password, err = flags.Password(u, c); err != nil {
		return err
	}
	made, err := keychange.EnrolmentKey(c.Context, opt)
	if err != nil {
		return hintKeyChange(err, opt.Dir)
	}
	if format == output.JSON {
		out := enrolmentKeyOutput{1, opt.DryRun, made.Provisioner, made.KeyID, made.Replaced, nil, made.File, made.Config}
		if !made.Until.IsZero() {
			out.Until = &made.Until
		}
		return u.JSON(out)
	}
	end := "until serve has reloaded"
	if !made.Until.IsZero() {
		end = "until " + made.Until.Format(time.RFC3339)
	}
	if opt.DryRun {
		u.Infof("%s and %s would be changed; tokens of key %s of provisioner %s would be good %s", made.File, made.Config, made.Replaced, made.Provisioner, end)
		return nil
	}
	if err := u.Outf("%s", made.KeyID); err != nil {
		return err
	}
	u.Infof("provisioner %s has a new key, in %s; tokens of the old one are good %s", made.Provisioner, made.File, end)
	u.Infof("now send SIGHUP to serve; on replicas, copy that file and pki.yaml first")
	return nil
}
