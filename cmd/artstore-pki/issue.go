package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/credentials"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/identity"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

const obtainTimeout = time.Minute

func issueCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "issue",
		Usage: "get a certificate with an enrolment token",
		Description: `Makes a private key here, sends a certificate request with the token to the authority, and
writes tls.crt (leaf first, then the chain), tls.key (0600) and ca.crt to the directory. The
token names the service, its names and the root to trust. After a lost answer the same
command with the same token gets the same certificate. Files that something else made are
kept, and the token is not spent.`,
		Flags: []cli.Flag{
			flags.Shared(flags.CAURL), flags.Shared(flags.TokenFile), flags.Shared(flags.AuthorityName),
			&cli.StringFlag{Name: "out", Required: true, Usage: "directory `DIR` for the three files"},
			&cli.StringFlag{Name: "root-fingerprint", Usage: "SHA-256 of the authority's root in `HEX`, instead of the token's"},
			keyTypeFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := flags.WantArgs(c, 0, 0); err != nil {
				return err
			}
			if c.String(flags.TokenFile) == "" {
				return ui.WithHint(ui.UsageErrorf("missing --%s", flags.TokenFile), "artstore-pki token SERVICE makes one on the authority's machine")
			}
			return runIssue(u, c, c.String("out"))
		},
	}
}

func renewCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:      "renew",
		Usage:     "replace a certificate by one with a new key",
		ArgsUsage: "DIR [--" + help.Exec + " CMD ARG…]",
		Description: `Renews what "issue" or a service wrote to DIR, over mutual TLS with the current certificate: new
key of the same type, new certificate, and the trust bundle of the moment, swapped in one step;
owner, group and mode stay. No token is needed while the certificate is valid. The authority and
its anchor are read from DIR; --ca-url is for another address, or a DIR of an older version.

With --if-due it does nothing before the certificate is due, and is for a timer. What follows
--exec is a command with its arguments, run without a shell after a renewal, and anew by the
next renew --exec if it failed. Exit status: 0 renewed, or not due; that of CMD if CMD failed;
1 anything else failed, also if another process holds DIR; 2 wrong command line.`,
		Flags: []cli.Flag{
			flags.Shared(flags.CAURL), flags.Shared(flags.AuthorityName), keyTypeFlag(),
			&cli.BoolFlag{Name: "if-due", Usage: "only when the certificate is due: between 0.60 and 0.70 of its life"},
			&cli.BoolFlag{Name: help.Exec, Usage: "run the command that follows, CMD ARG…, after a renewal; the last flag"},
		},
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

// keyTypeFlag is shared by issue and renew.
func keyTypeFlag() cli.Flag {
	return &cli.StringFlag{Name: "key-type", Usage: "`TYPE` of the new key: EC-P256, EC-P384, Ed25519, RSA-3072, RSA-4096 (default: that of the key there, else EC-P256)"}
}

// enrolmentConfig is the configuration that the flags of issue and renew give.
func enrolmentConfig(u *ui.UI, c *cli.Context, dir string) (enroll.Config, error) {
	cfg := enroll.Config{
		URL: c.String(flags.CAURL), Dir: dir, KeyType: keyTypeOf(c.String("key-type")),
		RootFingerprint: c.String("root-fingerprint"), AuthorityName: c.String(flags.AuthorityName), Logger: u.Logger(slog.LevelWarn),
	}
	return cfg, flags.HTTPSURL(flags.CAURL, cfg.URL)
}

// keyTypeOf takes the names of key types in any case.
func keyTypeOf(text string) enroll.KeyType {
	for _, k := range enroll.KeyTypes() {
		if strings.EqualFold(string(k), text) {
			return k
		}
	}
	return enroll.KeyType(text) // enroll says which there are
}

// runIssue enrols once. After a lost answer the same call gets the same certificate: the
// key was kept before the token was sent.
func runIssue(u *ui.UI, c *cli.Context, dir string) error {
	cfg, err := enrolmentConfig(u, c, dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, obtainTimeout)
	defer cancel()
	token, err := identity.ReadToken(u, c.String(flags.TokenFile)) // now, so that a missing file is the first thing said
	if err != nil {
		return err
	}
	cfg.Token = func(context.Context) (secret.String, error) { return token, nil }
	m, err := enroll.Issue(ctx, cfg)
	if err != nil {
		return hintHeld(fmt.Errorf("getting a certificate in %s: %w", dir, err), dir)
	}
	return reportObtained(u, dir, m)
}

// reportObtained says what lies in dir now.
func reportObtained(u *ui.UI, dir string, m rotation.Material) error {
	u.WarnOfReplaceable(dir)
	leaf := m.Certificate.Leaf
	u.Infof("%s: valid until %s, serial %s", leaf.Subject.CommonName, humantime.Stamp(leaf.NotAfter), certs.Serial(leaf))
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
		if err := u.Outf("%s", filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// hintHeld says that a directory has what a refused token was meant to bring.
func hintHeld(err error, dir string) error {
	denial, ok := errors.AsType[*enroll.Error](err)
	if !ok || denial.Status != http.StatusUnauthorized && denial.Status != http.StatusForbidden {
		return err
	}
	chain, unread := credentials.ReadChain(filepath.Join(dir, "tls.crt"))
	if unread != nil || time.Now().After(chain[0].NotAfter) {
		return err
	}
	return ui.WithHint(err, "%s holds a certificate of %s until %s; artstore-pki renew %s replaces it without a token",
		dir, chain[0].Subject.CommonName, humantime.Stamp(chain[0].NotAfter), dir)
}
