package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/credentials"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/hook"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// flagQuiet and flagExecTimeout are flags of renew.
const (
	flagQuiet       = "quiet"
	flagExecTimeout = "exec-timeout"
)

// renewCommand declares renew, which shares flags and configuration with issue.
//
// What follows --exec, or a -- behind DIR, is not parsed for options: help.FlagsFirst leaves it
// as it is, with DIR in front of it. So there are at least two arguments then.
func renewCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:      "renew",
		Usage:     "replace a certificate by one with a new key",
		ArgsUsage: "DIR [-- CMD ARG…]",
		Description: `Renews what "issue" or a service wrote to DIR, over mutual TLS with the current certificate: new
key of the same type, new certificate, and the trust bundle of the moment, swapped in one step;
owner, group and mode stay. No token is needed while the certificate is valid. The authority and
its anchor are read from DIR; --ca-url is for another address, or a DIR of an older version.

With --if-due it renews only when the certificate is due or the authority orders it, and is for a
timer: artstore-pki renew --if-due --quiet DIR -- systemctl reload nginx
Before that it only asks for such an order, and replaces revoked lists in the second half of their
validity. Then the status is 0, also if the authority does not answer.
CMD, behind --exec or --, runs without a shell when the files have changed and until it has
succeeded: one that failed, or was not reached, runs at the next time. It finds in its environment
ROTATED_DIR, ROTATED_SERVICE, ROTATED_SERIAL, ROTATED_NOT_AFTER and ROTATED_CHANGED.`,
		Flags: []cli.Flag{
			flags.Shared(flags.CAURL), flags.Shared(flags.AuthorityName), keyTypeFlag(),
			&cli.BoolFlag{Name: "if-due", Usage: "only when the certificate is due, between 0.60 and 0.70 of its life, or the authority orders it"},
			&cli.BoolFlag{Name: flagQuiet, Usage: "print only what is wrong"},
			values.DurationFlag(flagExecTimeout, hook.DefaultTimeout, "end CMD after this time; it then has failed"),
			&cli.BoolFlag{Name: help.Exec, Usage: "run the command that follows, CMD ARG…, after a renewal; the last flag, and the same as -- behind DIR"},
		},
		CustomHelpTemplate: help.Head + statusesRenew + "\n",
		Action: func(c *cli.Context) error {
			most := 1
			if c.Bool(help.Exec) {
				most = -1
				if c.Args().Len() < 2 {
					return ui.UsageErrorf("missing command after DIR --%s", help.Exec)
				}
			}
			if err := flags.WantArgs(c, 1, most); err != nil {
				return err
			}
			return runRenew(u, c)
		},
	}
}

// statusesRenew ends the help of renew.
const statusesRenew = `   0    renewed, or nothing was due; and CMD succeeded, if it was run
   1    it failed, also if another process holds DIR, or CMD has no status of its own
   2    the command line is wrong
   *    the status of CMD, if that failed
   130  interrupted`

// runRenew renews the certificate that DIR holds, at once or, with --if-due, when it is
// due, and then runs the command of --exec if it is owed. enroll decides when a certificate
// is due, and stores key, certificate and trust bundle in one step. Killed at any moment, DIR
// has the old set or the new one, and the record of the command owes it for a set for which
// it has not succeeded (TestRenewCrashes).
//
// A renewal that failed returns an error and status 1. The command is then run only if it was
// owed before. After the command, which puts the files into effect, they are reported to the
// authority. The renewal may take a minute, and the command its time limit.
func runRenew(u *ui.UI, c *cli.Context) (err error) {
	r := &renewal{u: u, c: c, dir: c.Args().First()}
	if r.cfg, err = renewalConfig(u, c, r.dir); err != nil {
		return err
	}
	if command := c.Args().Tail(); len(command) > 0 {
		if err := r.openRecord(command); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.record.Close()) }()
	}
	renewed, err := r.renew()
	if err != nil {
		err = fmt.Errorf("renewing a certificate in %s: %w", r.dir, err)
	}
	ran, failed := r.runOwed(renewed)
	if err = cmp.Or(err, failed); err != nil { // a command that failed has been complained of already
		return err
	}
	if renewed || ran {
		reportInEffect(c.Context, u, r.cfg)
	}
	return nil
}

// renewal is one run of renew.
type renewal struct {
	u   *ui.UI
	c   *cli.Context
	dir string
	cfg enroll.Config

	command hook.Command
	record  *hook.Record // nil without a command
}

// openRecord prepares the command: its record begins before anything is renewed.
func (r *renewal) openRecord(command []string) error {
	r.command = hook.Command{Args: command, Timeout: values.DurationOf(r.c, flagExecTimeout)}
	if !r.c.Bool(flagQuiet) {
		r.command.Output = r.u.Err // stdout of renew has the paths of the files only
	}
	if in, isFile := r.u.In.(*os.File); isFile {
		_, r.command.Terminal = r.u.Terminal(in) // sudo may ask there
	}
	if err := r.command.Check(); err != nil {
		return ui.UsageErrorf("--%s: %w", help.Exec, err)
	}
	record, err := hook.Open(r.dir)
	if err != nil {
		return err
	}
	generation, err := generationOf(r.dir)
	if err == nil {
		err = record.Start(generation)
	}
	if err != nil {
		return errors.Join(err, record.Close())
	}
	r.record = record
	return nil
}

// renew renews the certificate, if it is due or --if-due is not given, and says so.
func (r *renewal) renew() (renewed bool, err error) {
	ctx, cancel := context.WithTimeout(r.c.Context, obtainTimeout)
	defer cancel()
	get := renewAlways
	if r.c.Bool("if-due") {
		get = enroll.RenewIfDue
	}
	m, renewed, err := get(ctx, r.cfg)
	switch quiet := r.c.Bool(flagQuiet); {
	case err != nil:
	case renewed && quiet:
		r.u.WarnOfReplaceable(r.dir)
	case renewed:
		err = reportObtained(r.u, r.dir, m)
	case !quiet:
		r.u.Infof("%s: not due, valid until %s", m.Certificate.Leaf.Subject.CommonName, humantime.Stamp(m.Certificate.Leaf.NotAfter))
	}
	return renewed, err
}

// runOwed runs the command if it has not succeeded for the files in the directory, and notes
// how it ended. If it fails, the error is its own exit status, since renew has done its part. A
// command that could not be started, or that a signal or the time limit ended, has no status
// above 0: that is status 1. ran says that it has succeeded.
func (r *renewal) runOwed(renewed bool) (ran bool, err error) {
	if r.record == nil {
		return false, nil
	}
	generation, err := generationOf(r.dir)
	if err != nil || !r.record.Owed(generation) {
		return false, err
	}
	_, failure := r.command.Run(r.c.Context, r.event(generation))
	err = r.record.Note(generation, time.Now(), failure)
	if failure == nil {
		return err == nil, err
	}
	text := "the certificate is renewed, but "
	if !renewed {
		text = "the certificate was renewed before, but again "
	}
	r.u.Complain("error", text+strings.ReplaceAll(err.Error(), "\n", "; ")+"; the next renew --"+help.Exec+" runs it again")
	if failed, ok := errors.AsType[*hook.Error](failure); ok && failed.Status > 0 {
		return false, ui.ExitStatus(failed.Status)
	}
	return false, ui.ExitStatus(ui.ExitFailure)
}

// event tells the command what has changed since it has succeeded. What cannot be read is left
// out: the command is owed all the same.
func (r *renewal) event(generation string) hook.Event {
	e := hook.Event{Dir: r.dir}
	if path, err := filepath.Abs(r.dir); err == nil {
		e.Dir = path
	}
	if chain, err := credentials.ReadChain(filepath.Join(r.dir, "tls.crt")); err == nil {
		e.Service, e.Serial, e.NotAfter = chain[0].Subject.CommonName, certs.Serial(chain[0]), chain[0].NotAfter
	}
	known := strings.Fields(r.record.State().Done)
	for part := range strings.FieldsSeq(generation) {
		if what, _, _ := strings.Cut(part, ":"); !slices.Contains(known, part) {
			e.Changed = append(e.Changed, what)
		}
	}
	return e
}

// generationOf returns what a program loads from dir, as a word with a digest for each file:
// "certificate:… trust:… lists:…", without those that do not exist. The key is not read: it
// changes with its certificate.
func generationOf(dir string) (string, error) {
	var parts []string
	for _, f := range [...]struct{ what, name string }{{"certificate", "tls.crt"}, {"trust", "ca.crt"}, {"lists", "crl.pem"}} {
		data, err := os.ReadFile(filepath.Join(dir, f.name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("reading what the command is for: %w", err)
		}
		parts = append(parts, fmt.Sprintf("%s:%x", f.what, sha256.Sum256(data)))
	}
	return strings.Join(parts, " "), nil
}

// reportInEffect tells the authority what is in effect here. A failure is a warning: the next renewal
// reports as well.
func reportInEffect(ctx context.Context, u *ui.UI, cfg enroll.Config) {
	ctx, cancel := context.WithTimeout(ctx, obtainTimeout)
	defer cancel()
	if err := cfg.ReportInEffect(ctx); err != nil {
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
