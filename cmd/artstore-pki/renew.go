package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

const (
	// hookOwed is in an identity directory while the command after a renewal has yet to succeed.
	hookOwed = "exec.pending"
)

// runRenew renews what DIR holds, and runs the command after it.
func runRenew(u *ui.UI, c *cli.Context) error {
	dir, command := c.Args().First(), c.Args().Tail()
	cfg, err := renewalConfig(u, c, dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, obtainTimeout)
	defer cancel()
	get := renewAlways
	if c.Bool("if-due") {
		get = enroll.RenewIfDue
	}
	m, renewed, err := get(ctx, cfg)
	if err != nil {
		return fmt.Errorf("renewing a certificate in %s: %w", dir, err)
	}
	if renewed {
		err = reportObtained(u, dir, m)
	} else {
		u.Infof("%s: not due, valid until %s", m.Certificate.Leaf.Subject.CommonName, humantime.Stamp(m.Certificate.Leaf.NotAfter))
	}
	if err != nil || len(command) == 0 {
		return err
	}
	return commandAfter{u: u, dir: dir, command: command}.run(c.Context, renewed)
}

// renewAlways is Renew in the form of RenewIfDue.
func renewAlways(ctx context.Context, cfg enroll.Config) (rotation.Material, bool, error) {
	m, err := enroll.Renew(ctx, cfg)
	return m, err == nil, err
}

// renewalConfig is what DIR says about its authority, and what the flags say in its place.
func renewalConfig(u *ui.UI, c *cli.Context, dir string) (enroll.Config, error) {
	stored, unread := enroll.ReadConfig(dir)
	if unread != nil && c.String(flags.CAURL) == "" {
		if errors.Is(unread, fs.ErrNotExist) {
			return stored, ui.WithHint(ui.UsageErrorf("missing --%s: %s does not say which authority it is of", flags.CAURL, dir), "the next renewal finds it there")
		}
		return stored, ui.WithHint(unread, "with --%s the file is not needed; a renewal writes it anew", flags.CAURL)
	}
	if unread == nil && c.String(flags.CAURL) == "" {
		stored.Logger, stored.KeyType = u.Logger(slog.LevelWarn), keyTypeOf(c.String("key-type"))
		if name := c.String(flags.AuthorityName); name != "" {
			stored.AuthorityName = name
		}
		return stored, nil
	}
	return enrolmentConfig(u, c, dir)
}

// commandAfter is the command that --exec gives, for the certificates in dir.
type commandAfter struct {
	u       *ui.UI
	dir     string
	command []string // with its arguments; no shell reads them
}

// run runs the command if there was a renewal, or if it failed after the last
// one. That it is owed is on disk before it runs: a crash in between runs it once
// more. Its exit status becomes that of renew, which has succeeded itself.
func (a commandAfter) run(ctx context.Context, renewed bool) error {
	owed := filepath.Join(a.dir, hookOwed)
	if !renewed {
		if _, err := os.Lstat(owed); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	} else if err := durable.WriteFile(owed, nil, durable.Private); err != nil {
		return fmt.Errorf("noting the command to run: %w", err)
	}
	cmd := exec.CommandContext(ctx, a.command[0], a.command[1:]...) //nolint:gosec // G204: the operator's own command line
	cmd.Stdout, cmd.Stderr = a.u.Err, a.u.Err                       // stdout has the paths of the files only
	if err := cmd.Run(); err != nil {
		a.u.Complain("error", fmt.Sprintf("the certificate is renewed, but running %q failed: %v; the next renew --%s runs it again", a.command, err, help.Exec))
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 {
			return ui.ExitStatus(exit.ExitCode())
		}
		return ui.ExitStatus(ui.ExitFailure)
	}
	if err := os.Remove(owed); err != nil {
		return fmt.Errorf("noting that the command ran: %w", err)
	}
	return nil
}
