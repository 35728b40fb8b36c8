package dev

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/demo"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/internal/durable"
)

const (
	demoDuration     = 4 * time.Minute
	demoLeafLifetime = time.Minute
	// minLeafLifetime is the shortest life of a certificate. Below it, a loaded machine can
	// take longer for a renewal than the certificate has left.
	minLeafLifetime = 10 * time.Second
)

// Demo declares demo.
func Demo(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "watch it work: authority, Admin Module, Storage Element and ingester on this machine",
		Description: `Starts everything on free loopback ports, with certificates that live a minute, and uploads
files without a break. Meanwhile every service rotates its certificate and key several
times, the authority's intermediate is replaced, a new root joins the trust bundle, signs,
and the old root leaves. The end prints what happened and audits everything that was started; any
failure or finding makes the exit status 1.`,
		Flags: append(u.LogFlags(slog.LevelError),
			values.DurationFlag("duration", demoDuration, "how long to upload, counted from the moment all services answer; a slow machine takes what the first two changes need"),
			values.DurationFlag("leaf-lifetime", demoLeafLifetime, "lifetime of every certificate, 10s at least"),
			&cli.StringFlag{Name: flags.Dir, Aliases: []string{"d"}, Usage: "keep the state in this new directory `DIR` (default: a temporary one, removed at the end)"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "print what the packages log: short for --log-level info"},
		),
		Action: u.Action(runDemo),
	}
}

// runDemo checks the times, prepares the directory, and leaves the rest to demo.Show. A temporary
// directory is removed at the end, also after an error. One that was named with --dir must be
// absent or empty, and stays for a look at it. A demo that was killed leaves its temporary
// directory, with keys that nothing trusts.
func runDemo(u *ui.UI, c *cli.Context) (err error) {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	opt := demo.Options{Duration: values.DurationOf(c, "duration"), LeafLifetime: values.DurationOf(c, "leaf-lifetime"), Dir: c.String(flags.Dir)}
	if opt.LeafLifetime < minLeafLifetime {
		return ui.UsageErrorf("--leaf-lifetime %s: want %s at least", opt.LeafLifetime, minLeafLifetime)
	}
	if opt.Duration <= 0 {
		return ui.UsageErrorf("--duration %s: want more than nothing", opt.Duration)
	}
	level := slog.LevelError
	if c.Bool("verbose") {
		level = slog.LevelInfo
	}
	opt.Logger = u.Logger(level)
	if opt.Dir == "" {
		if opt.Dir, err = os.MkdirTemp("", "artstore-demo-"); err != nil {
			return fmt.Errorf("making a temporary directory: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(opt.Dir)) }()
	} else if err := durable.EmptyDir(opt.Dir); err != nil {
		return fmt.Errorf("preparing the state directory: %w", err)
	}
	return demo.Show(c.Context, u, opt)
}
