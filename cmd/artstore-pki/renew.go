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
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// hookOwed is the name of a file in the identity directory. It is there from before the
// command after a renewal is run until that command has succeeded. It is empty.
const hookOwed = "exec.pending"

// runRenew renews the certificate that DIR holds, at once or, with --if-due, when it is
// due, and then runs the command of --exec. enroll decides when a certificate is due, and
// stores key, certificate and trust bundle in one step. Killed at any moment, DIR has the
// old set or the new one.
//
// A renewal that failed returns an error and status 1, and the command is not run. The
// renewal may take a minute; the command may take as long as it wants. After the command, which
// puts the files into effect, they are reported to the authority.
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
	if err != nil {
		return err
	}
	ran := false
	if len(command) > 0 {
		if ran, err = (commandAfter{u: u, dir: dir, command: command}).run(c.Context, renewed); err != nil {
			return err
		}
	}
	if renewed || ran {
		reportTrust(c.Context, u, cfg, m)
	}
	return nil
}

// reportTrust shows the new certificate to the authority, with the trust bundle in effect here.
// Without it, the next renewal would be the first to do so: an operator who waits until all
// services trust a new root, or until none uses the certificates of a stolen intermediate,
// would wait for two renewals of each. A failure is a warning: the next renewal reports as well.
func reportTrust(ctx context.Context, u *ui.UI, cfg enroll.Config, m rotation.Material) {
	ctx, cancel := context.WithTimeout(ctx, obtainTimeout)
	defer cancel()
	client, err := enroll.NewClient(cfg.URL, m.Roots, &m.Certificate)
	if err == nil {
		defer client.Close()
		client.AuthorityName, client.TrustDigest = cfg.AuthorityName, stepapi.TrustDigest(m.Roots)
		_, err = client.Roots(ctx)
	}
	if err != nil {
		u.Infof("warning: the new certificate is in place, and the authority was not told: %v", err)
	}
}

// renewAlways is enroll.Renew with the result of enroll.RenewIfDue: without an error there
// was a renewal.
func renewAlways(ctx context.Context, cfg enroll.Config) (rotation.Material, bool, error) {
	m, err := enroll.Renew(ctx, cfg)
	return m, err == nil, err
}

// renewalConfig returns where the certificate in dir comes from: what dir itself says, or,
// with --ca-url, what the flags say in its place. The file in dir is not needed then, and a
// renewal writes it anew.
//
// A directory that an older version of this program wrote has no such file, which is an
// error of the command line, because --ca-url is what is missing. A file that cannot be
// believed, because others can write it, is an error as well: it would choose the
// authority.
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

// commandAfter is the command that --exec gives.
type commandAfter struct {
	u *ui.UI
	// dir is the identity directory that was renewed, or was not due.
	dir string
	// command is the program and its arguments. No shell reads them.
	command []string
}

// run runs the command if there was a renewal, or if the command failed after the last
// renewal. A file on disk says that the command has yet to succeed. It is written before
// the command runs and removed after it has succeeded, so a crash between the two runs the
// command once more, and never leaves a renewal without it.
//
// If the command fails, the error is its own exit status, since renew has done its part. A
// command that could not be started, or that a signal ended, has no status above 0: that is
// status 1. ran says that it was run, and has succeeded.
func (a commandAfter) run(ctx context.Context, renewed bool) (ran bool, err error) {
	owed := filepath.Join(a.dir, hookOwed)
	if !renewed {
		if _, err := os.Lstat(owed); errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
	} else if err := durable.WriteFile(owed, nil, durable.Private); err != nil {
		return false, fmt.Errorf("noting the command to run: %w", err)
	}
	cmd := exec.CommandContext(ctx, a.command[0], a.command[1:]...) //nolint:gosec // G204: the operator's own command line
	cmd.Stdout, cmd.Stderr = a.u.Err, a.u.Err                       // stdout of renew has the paths of the files only
	if err := cmd.Run(); err != nil {
		a.u.Complain("error", fmt.Sprintf("the certificate is renewed, but running %q failed: %v; the next renew --%s runs it again", a.command, err, help.Exec))
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 {
			return false, ui.ExitStatus(exit.ExitCode())
		}
		return false, ui.ExitStatus(ui.ExitFailure)
	}
	if err := os.Remove(owed); err != nil {
		return false, fmt.Errorf("noting that the command ran: %w", err)
	}
	return true, nil
}
