package main

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/secret"
)

const (
	flagRenew       = "renew"
	flagDryRun      = "dry-run"
	flagExpired     = "expired"
	flagNotYetValid = "not-yet-valid"

	shortestDevLife = 10 * time.Second // pki.yaml takes no less
	// A fixture that is not valid yet begins in a year and must end within the
	// five years of its issuer.
	longestDevLife = 3 * humantime.Year
)

func devCertsCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:      "certs",
		Usage:     "keep certificates for a developer's ArtStore in a directory",
		ArgsUsage: "DIR",
		Description: `Makes an authority in DIR/ca and, from it, tls.crt, tls.key and ca.crt in DIR/SERVICE for every
service of ArtStore and for localhost, good as server and as client. DIR/ca.crt is what all trust.
Run again, it replaces only what must be and says why: names or issuer changed, a third of the
life left. Otherwise it touches nothing. Files that it did not make are kept.

The profiles in DIR/ca/pki.yaml say which services and names there are, and how long certificates
live: edit it and run again. The key password stands beside the keys: for development only.`,
		Flags: []cli.Flag{
			values.DurationFlag(flags.Lifetime, 30*humantime.Day, "lifetime of the certificates in a new DIR, a `TIME` such as 36h, 14d or 2y; after that, pki.yaml says it"),
			&cli.BoolFlag{Name: flagRenew, Usage: "replace all certificates, whatever their state"},
			&cli.BoolFlag{Name: flagDryRun, Usage: "say what would be done, and do nothing"},
			&cli.BoolFlag{Name: flagExpired, Usage: "keep an expired certificate in DIR/fixtures/expired, too"},
			&cli.BoolFlag{Name: flagNotYetValid, Usage: "keep one that begins in a year in DIR/fixtures/not-yet-valid, too"},
			output.Flag(output.Table, output.JSON),
			flags.Shared(flags.PasswordFile),
		},
		Action: u.Action(runDevCerts),
	}
}

// devCerts is one run of the command.
type devCerts struct {
	u        *ui.UI
	dir      string
	password secret.String
	life     time.Duration
	lifeSet  bool // by the command line
	renew    bool
	dryRun   bool
	fixtures map[string]bool // asked for
	report   *devReport
}

func newDevCerts(u *ui.UI, c *cli.Context) (*devCerts, error) {
	if err := flags.WantArgs(c, 1, 1); err != nil {
		return nil, err
	}
	d := &devCerts{
		u: u, dir: filepath.Clean(c.Args().First()),
		life: values.DurationOf(c, flags.Lifetime), lifeSet: c.IsSet(flags.Lifetime), renew: c.Bool(flagRenew), dryRun: c.Bool(flagDryRun),
		fixtures: map[string]bool{flagExpired: c.Bool(flagExpired), flagNotYetValid: c.Bool(flagNotYetValid)},
	}
	if c.Args().First() == "" { // an unset variable in a script; it would mean the current directory
		return nil, ui.UsageErrorf("the directory has an empty name")
	}
	if d.life < shortestDevLife || d.life > longestDevLife {
		return nil, ui.UsageErrorf("--%s %s: want %s to %s", flags.Lifetime, humantime.Format(d.life), shortestDevLife, humantime.Format(longestDevLife))
	}
	format, err := output.Of(c, output.Table, output.JSON)
	if err != nil {
		return nil, err
	}
	d.report = newDevReport(u, format)
	d.password, err = flags.Password(u, c)
	return d, err
}

func runDevCerts(u *ui.UI, c *cli.Context) error {
	d, err := newDevCerts(u, c)
	if err != nil {
		return err
	}
	made, err := d.prepare(c.Context)
	if err != nil {
		return err
	}
	p, err := d.makePlan(made)
	if err != nil {
		return err
	}
	d.report.begin(p)
	idle := !p.work()
	if d.dryRun || idle {
		err = d.reportPlan(p)
	} else {
		err = d.apply(c.Context, p)
	}
	if ctxErr := c.Err(); ctxErr != nil {
		return ctxErr // what failed for it is not worth a line each
	}
	if endErr := d.report.end(p); endErr != nil {
		return errors.Join(err, endErr)
	}
	switch {
	case d.dryRun:
		d.u.Infof("dry run: nothing was changed")
	case idle && err == nil:
		d.u.Infof("nothing to do")
	}
	for _, left := range p.abandoned {
		d.u.Infof("%s stays, but %s has no profile for it any more", left, filepath.Join(d.authorityDir(), "pki.yaml"))
	}
	if err == nil {
		d.advise(p)
	}
	return devHint(err)
}

// reportPlan reports a plan that is not carried out.
func (d *devCerts) reportPlan(p *devPlan) (err error) {
	for _, item := range p.items {
		err = errors.Join(err, d.reportItem(item))
	}
	return errors.Join(err, p.trustErr)
}

// reportItem reports an item about which nothing more will be done.
func (d *devCerts) reportItem(item *devItem) error {
	if item.action == toKeep && !d.dryRun {
		item.action = wasKept
	}
	d.report.line(item)
	return item.err
}

// apply does what the plan says. One certificate that fails does not keep
// the others from being made: each is complete in itself.
func (d *devCerts) apply(ctx context.Context, p *devPlan) (err error) {
	err = p.trustErr
	if p.linkTrust {
		err = errors.Join(err, linkTrust(d.dir))
	}
	var issuer *devIssuer
	defer func() {
		if issuer != nil {
			err = errors.Join(err, issuer.Close())
		}
	}()
	for _, item := range p.items {
		if item.action.due() && item.err == nil {
			if issuer == nil {
				var openErr error
				if issuer, openErr = d.openIssuer(ctx); openErr != nil {
					return errors.Join(err, openErr)
				}
			}
			issuer.obtain(ctx, item)
			if ctx.Err() != nil {
				return err
			}
		}
		err = errors.Join(err, d.reportItem(item))
	}
	return err
}

// advise gives a command to try the certificates with: against "dev admin", or
// whatever else listens there.
func (d *devCerts) advise(p *devPlan) {
	for _, item := range p.items {
		if item.fixture != "" || item.until.IsZero() {
			continue
		}
		file := func(name string) string { return shellWord(filepath.Join(item.dir, name)) }
		d.u.Infof("next: curl --cacert %s --cert %s --key %s https://localhost:8000/health/live",
			shellWord(filepath.Join(d.dir, devTrust)), file("tls.crt"), file("tls.key"))
		return
	}
}

// shellWord quotes a path where a shell would take it for more or less than one word.
func shellWord(path string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+@:,", r)
	}
	if strings.IndexFunc(path, func(r rune) bool { return !plain(r) }) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

func devHint(err error) error {
	if errors.Is(err, fs.ErrExist) {
		return ui.WithHint(err, "move it out of the way and run again; what this command did not make it does not touch")
	}
	return err
}
