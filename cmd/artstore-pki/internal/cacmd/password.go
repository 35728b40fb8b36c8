package cacmd

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/keychange"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/statehints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// flagNewPassword names the file with the new password. There is no flag for the password
// itself, and no variable: the old one is in the variable.
const flagNewPassword = "new-password-file"

// statusesChange ends the help of commands that change secrets. Status 3 tells a script that
// nothing was changed because the change itself is refused, and not because something failed.
const statusesChange = `   0    done
   1    it failed; the error says what and where, and the same command goes on from there
   2    the command line is wrong
   3    refused, and nothing was changed
   130  interrupted`

// passwordCommand declares password change.
func passwordCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "password",
		Usage: "change the password that protects the keys of an authority",
		Subcommands: []*cli.Command{{
			Name:  "change",
			Usage: "put all keys of a state directory under a new password",
			Description: `Encrypts every key of the directory anew: those of intermediates, also retired ones, that of the
log, the enrolment keys, and the root keys that the old password opens. Keys that were not
encrypted are encrypted. It works beside a running authority. If it is interrupted, the keys open
with the old password or with the new one, and the same command goes on. secrets/password gets the
new password if it had the old one; another file that "serve" reads is yours to replace. Then send
SIGHUP to "serve".

With --root, the root keys alone get a password of their own. Copies of the keys, as in backups,
stay under the old password.`,
			Flags: []cli.Flag{
				flags.Shared(flags.Dir), flags.Shared(flags.PasswordFile),
				&cli.StringFlag{Name: flagNewPassword, Usage: "`FILE` with the new password, 8 characters at least"},
				&cli.BoolFlag{Name: "root", Usage: "change the password of the root keys, and of nothing else"},
				&cli.BoolFlag{Name: "dry-run", Usage: "open every key, list the files that would be changed, and change nothing"},
				output.Flag(output.Text, output.JSON),
			},
			CustomHelpTemplate: help.Head + statusesChange + "\n",
			Action:             u.Action(runPasswordChange),
		}},
	}
}

// passwordOutput is what password change prints with -o json.
type passwordOutput struct {
	SchemaVersion int      `json:"schema_version"`
	DryRun        bool     `json:"dry_run"`
	Changed       []string `json:"changed"` // files that have, or would get, the new password
	Kept          []string `json:"kept"`    // root keys with another password, or not here
}

// runPasswordChange changes the password of the keys, which keychange.Password does. The files
// that were changed are the data of the command, on stdout; what is left to do is said on
// stderr.
//
// A password that is too short, a key that does not open, and a file of another user are
// refused before anything is written, with status 3. After any other error the directory
// opens with the old password or with the new one.
func runPasswordChange(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	format, err := output.Of(c, output.Text, output.JSON)
	if err != nil {
		return err
	}
	path := c.String(flagNewPassword)
	if path == "" {
		return flags.SeeHelp(c, ui.UsageErrorf("missing --%s", flagNewPassword))
	}
	opt := keychange.PasswordOptions{Dir: c.String(flags.Dir), Roots: c.Bool("root"), DryRun: c.Bool("dry-run")}
	if opt.New, err = u.ReadSecret(path); err != nil {
		return fmt.Errorf("reading the new password: %w", err)
	}
	if opt.Password, err = flags.Password(u, c); err != nil {
		return err
	}
	done, err := keychange.Password(c.Context, opt)
	if err != nil {
		return hintKeyChange(err, opt.Dir)
	}
	if format == output.JSON {
		return u.JSON(passwordOutput{1, opt.DryRun, orEmpty(done.Changed), orEmpty(done.Kept)})
	}
	for _, path := range done.Changed {
		if err := u.Outf("%s", path); err != nil {
			return err
		}
	}
	for _, path := range done.Kept {
		u.Infof("not changed: %s has a password of its own, or is not here; --root changes that", path)
	}
	switch {
	case opt.DryRun:
		u.Infof("%d keys would be changed", len(done.Changed))
	case len(done.Changed) == 0:
		u.Infof("every key has this password already")
	default:
		u.Infof("%d keys have the new password; if serve runs, let it read the new one and send it SIGHUP", len(done.Changed))
	}
	return nil
}

// hintKeyChange returns the error of a change of secrets with advice. What is refused ends in
// status 3.
func hintKeyChange(err error, dir string) error {
	switch {
	case errors.Is(err, setup.ErrPassword):
		return ui.Refused(ui.WithHint(err, "nothing was changed; choose a longer one"))
	case errors.Is(err, keychange.ErrOwner):
		return ui.Refused(ui.WithHint(err, "nothing was changed; run it as the user that serve runs as"))
	case errors.Is(err, keychange.ErrBusy):
		return ui.Refused(ui.WithHint(err, "nothing was changed; wait for it, and run this again if it is still needed"))
	case errors.Is(err, keychange.ErrNoRootKey):
		return ui.Refused(ui.WithHint(err, "nothing was changed; put the medium of root_key in, and name the password of the root with --%s", flags.PasswordFile))
	case errors.Is(err, keychange.ErrForm):
		return ui.Refused(ui.WithHint(err, "nothing was changed; write the key of the provisioner in quotes, as in key: '{…}', and run it again"))
	case errors.Is(err, keychange.ErrEdited):
		return ui.Refused(ui.WithHint(err, "the old key is still in effect; run it again"))
	case errors.Is(err, keychange.ErrProvisioner), errors.Is(err, keychange.ErrKeep):
		return ui.UsageErrorf("%w", err)
	case errors.Is(err, ca.ErrWrongPassword), errors.Is(err, ca.ErrNoPassword):
		return ui.Refused(statehints.StateDir(err, dir, ""))
	}
	return statehints.StateDir(err, dir, statehints.Doctor)
}

// orEmpty returns a list that is [] in JSON, also if it is nil.
func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
