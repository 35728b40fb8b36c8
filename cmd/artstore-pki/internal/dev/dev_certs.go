package dev

import (
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/devcerts"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/internal/humantime"
)

const (
	flagRenew  = "renew"
	flagDryRun = "dry-run"

	// shortestDevLife is the shortest lifetime that pki.yaml takes.
	shortestDevLife = 10 * time.Second
	// longestDevLife leaves room for the fixture that is not valid yet: it begins in a year
	// and must end within the five years of its issuer.
	longestDevLife = 3 * humantime.Year
)

// devCertsCommand declares dev certs.
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
			&cli.BoolFlag{Name: devcerts.Expired, Usage: "keep an expired certificate in DIR/fixtures/expired, too"},
			&cli.BoolFlag{Name: devcerts.NotYetValid, Usage: "keep one that begins in a year in DIR/fixtures/not-yet-valid, too"},
			output.Flag(output.Table, output.JSON),
			flags.Shared(flags.PasswordFile),
		},
		Action: u.Action(runDevCerts),
	}
}

// devOptionsOf returns the options of dev certs from the command line, with the password of the
// authority's keys. A lifetime outside of the two bounds above is an error of the command
// line, and so is an empty name of the directory.
func devOptionsOf(u *ui.UI, c *cli.Context) (opt devcerts.Options, err error) {
	if err := flags.WantArgs(c, 1, 1); err != nil {
		return opt, err
	}
	opt = devcerts.Options{
		Dir: filepath.Clean(c.Args().First()), Life: values.DurationOf(c, flags.Lifetime), LifeSet: c.IsSet(flags.Lifetime),
		Renew: c.Bool(flagRenew), DryRun: c.Bool(flagDryRun),
	}
	for _, fixture := range []string{devcerts.Expired, devcerts.NotYetValid} {
		if c.Bool(fixture) {
			opt.Fixtures = append(opt.Fixtures, fixture)
		}
	}
	if c.Args().First() == "" { // of a variable that is not set: Clean has made "." of it
		return opt, ui.UsageErrorf("the directory has an empty name")
	}
	if opt.Life < shortestDevLife || opt.Life > longestDevLife {
		return opt, ui.UsageErrorf("--%s %s: want %s to %s", flags.Lifetime, humantime.Format(opt.Life), shortestDevLife, humantime.Format(longestDevLife))
	}
	if opt.Format, err = output.Of(c, output.Table, output.JSON); err != nil {
		return opt, err
	}
	opt.Password, err = flags.Password(u, c)
	return opt, err
}

// runDevCerts keeps the certificates of a developer's directory. devcerts.Keep decides which of
// them must be replaced, starts an authority for that in this process, and prints what it did.
// A run that was interrupted leaves each certificate as it was or replaced; the next run does
// the rest.
func runDevCerts(u *ui.UI, c *cli.Context) error {
	opt, err := devOptionsOf(u, c)
	if err != nil {
		return err
	}
	return devcerts.Keep(c.Context, u, opt)
}
