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

	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

const obtainTimeout = time.Minute

func issueCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "issue",
		Usage: "get a certificate with an enrolment token",
		Description: `Makes a private key here, sends a certificate request with the token to the authority, and
writes tls.crt (leaf first, then the chain), tls.key (0600) and ca.crt to the directory. The
token names the service, its names and the root to trust. After a lost answer the same
command with the same token gets the same certificate. Files that something else made are
kept, and the token is not spent.`,
		Flags: []cli.Flag{
			caURLFlag(), tokenFileFlag(), authorityNameFlag(),
			&cli.StringFlag{Name: "out", Required: true, Usage: "directory `DIR` for the three files"},
			&cli.StringFlag{Name: "root-fingerprint", Usage: "SHA-256 of the authority's root in `HEX`, instead of the token's"},
			keyTypeFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 0); err != nil {
				return err
			}
			if c.String(flagTokenFile) == "" {
				return withHint(usagef("missing --%s", flagTokenFile), "artstore-pki token SERVICE makes one on the authority's machine")
			}
			return u.obtain(c, c.String("out"), "getting", enroll.Issue)
		},
	}
}

func renewCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "renew",
		Usage:     "replace a certificate by one with a new key",
		ArgsUsage: "DIR",
		Description: `Renews what "issue" wrote to DIR, over mutual TLS with the current certificate: new key, new
certificate, and the trust bundle of the moment, swapped in one step. No token is needed while the
certificate is valid.`,
		Flags: []cli.Flag{caURLFlag(), authorityNameFlag(), keyTypeFlag()},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1, 1); err != nil {
				return err
			}
			return u.obtain(c, c.Args().First(), "renewing", enroll.Renew)
		},
	}
}

func keyTypeFlag() cli.Flag {
	return &cli.StringFlag{Name: "key-type", Value: "EC-P256", Usage: "`TYPE` of the new key: EC-P256, Ed25519, RSA-3072"}
}

// obtain runs one of enroll's one-shot functions for the files in dir.
func (u *ui) obtain(c *cli.Context, dir, doing string, get func(context.Context, enroll.Config) (rotation.Material, error)) error {
	if err := httpsURL(flagCAURL, c.String(flagCAURL)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, obtainTimeout)
	defer cancel()
	cfg := enroll.Config{
		URL: c.String(flagCAURL), Dir: dir, KeyType: enroll.KeyType(strings.ToLower(c.String("key-type"))),
		RootFingerprint: c.String("root-fingerprint"), AuthorityName: c.String(flagAuthority), Logger: u.logger(slog.LevelWarn),
	}
	if path := c.String(flagTokenFile); path != "" {
		token, err := u.readToken(path) // now, so that a missing file is the first thing said
		if err != nil {
			return err
		}
		cfg.Token = func(context.Context) (secret.String, error) { return token, nil }
	}
	m, err := get(ctx, cfg)
	if err != nil {
		err = fmt.Errorf("%s a certificate in %s: %w", doing, dir, err)
		if cfg.Token != nil {
			err = hintHeld(err, dir)
		}
		return err
	}
	u.warnOfReplaceable(dir)
	leaf := m.Certificate.Leaf
	u.say("%s: valid until %s, serial %s", leaf.Subject.CommonName, leaf.NotAfter.Local().Format(time.DateTime), pemfile.Serial(leaf))
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
		if err := u.print("%s", filepath.Join(dir, name)); err != nil {
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
	chain, unread := readCertificates(filepath.Join(dir, "tls.crt"))
	if unread != nil || time.Now().After(chain[0].NotAfter) {
		return err
	}
	return withHint(err, "%s holds a certificate of %s until %s; artstore-pki renew %s replaces it without a token",
		dir, chain[0].Subject.CommonName, chain[0].NotAfter.Local().Format(time.DateTime), dir)
}
