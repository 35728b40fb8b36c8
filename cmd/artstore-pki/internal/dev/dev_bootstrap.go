package dev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/secret"
)

// devBootstrapCommand declares dev bootstrap, the job that runs before a stack of containers.
func devBootstrapCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "bootstrap",
		Usage: "make an authority if there is none, and fresh enrolment tokens",
		Description: `The first step of a stack that starts by itself. An authority that is there is kept as it is;
each token file is replaced by a new one-time token, so that running this again heals
services whose certificates have expired meanwhile. Tokens go to files (0600) only.

--token SERVICE=FILE makes a token for all names of the service's profile;
--token SERVICE:NAME,NAME=FILE for these names of it alone.`,
		Flags: []cli.Flag{
			flags.Shared(flags.Dir), flags.Shared(flags.PasswordFile),
			&cli.StringFlag{Name: "name", Value: "ArtStore", Usage: "`NAME` of a new authority"},
			&cli.StringSliceFlag{Name: "dns", Usage: "`NAME` or IP address clients reach a new authority by; repeat for more (default: localhost, 127.0.0.1, ::1)"},
			values.DurationFlag(flags.Lifetime, humantime.Day, "lifetime of service certificates of a new authority, a `TIME` such as 36h or 14d; 10s at least"),
			&cli.StringSliceFlag{Name: "token", Usage: "`SERVICE[:NAME,...]=FILE` to write a token for; repeat for more"},
			values.DurationFlag("token-lifetime", 10*time.Minute, "how long the tokens may be used, 1h at most"),
		},
		Action: u.Action(runDevBootstrap),
	}
}

// runDevBootstrap makes an authority if there is none, and then writes a token for each --token.
// It reads all of the command line before it makes anything. Running it again is harmless:
// the authority stays as it is, and each token file gets a new token.
//
// An error in the middle leaves the tokens that were written before it, which are good.
func runDevBootstrap(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	var orders []tokenRequest
	for _, text := range c.StringSlice("token") {
		order, err := parseTokenRequest(text)
		if err != nil {
			return err
		}
		orders = append(orders, order)
	}
	pw, err := flags.Password(u, c)
	if err != nil {
		return err
	}
	if err := ensureAuthority(u, c, pw); err != nil {
		return err
	}
	dir := ca.StateDir(c.String(flags.Dir))
	for _, order := range orders {
		opt := ca.TokenOptions{Password: pw, Service: order.service, Names: order.names, Lifetime: values.DurationOf(c, "token-lifetime")}
		if err := writeToken(c.Context, dir, opt, order.path); err != nil {
			return fmt.Errorf("making a token for %s: %w", order.service, err)
		}
		u.Infof("token for %s written to %s", order.service, order.path)
	}
	return nil
}

// ensureAuthority makes an authority with the password pw in the state directory, unless a
// pki.yaml is there. A pki.yaml that cannot be loaded is an error: the directory is an
// authority, and a new one would lose its record. A directory that has other files and no
// pki.yaml is refused by setup.Init.
func ensureAuthority(u *ui.UI, c *cli.Context, pw secret.String) error {
	dir := c.String(flags.Dir)
	_, err := policy.Load(dir)
	if err == nil {
		u.Infof("authority in %s kept; --name, --dns and --lifetime count for a new one only", dir)
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("opening the authority in %s: %w", dir, err)
	}
	result, err := setup.Init(c.Context, setup.Options{
		Dir: dir, Name: c.String("name"), DNSNames: c.StringSlice("dns"), LeafLifetime: values.DurationOf(c, flags.Lifetime), Password: pw,
	})
	if err != nil {
		return fmt.Errorf("making the authority in %s: %w", dir, err)
	}
	u.Infof("authority made in %s", dir)
	u.Infof("root fingerprint (SHA-256): %s", result.RootFingerprint)
	return nil
}

// writeToken makes a token and replaces the file at path (0600) in one step, so that a service
// that reads the file has the old token or the new one, and never a part.
func writeToken(ctx context.Context, dir ca.StateDir, opt ca.TokenOptions, path string) error {
	token, err := dir.NewToken(ctx, opt)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, []byte(token.Expose()+"\n"), durable.Private)
}

// tokenRequest is one --token.
type tokenRequest struct {
	service string
	names   []string // nil means all of the profile
	path    string   // of the file that gets the token
}

// parseTokenRequest reads SERVICE=FILE or SERVICE:NAME,NAME=FILE. The first colon ends the
// service, because names may be IPv6 addresses, and the first = ends the names. Whether the
// service may have the names is for the authority to say.
func parseTokenRequest(text string) (o tokenRequest, err error) {
	what, path, ok := strings.Cut(text, "=")
	service, names, narrowed := strings.Cut(what, ":")
	if narrowed {
		o.names = strings.Split(names, ",")
	}
	o.service, o.path = service, path
	if !ok || service == "" || path == "" || narrowed && names == "" {
		return o, ui.UsageErrorf("--token %q: want SERVICE=FILE or SERVICE:NAME,NAME=FILE", printable.Clean(text))
	}
	return o, nil
}
