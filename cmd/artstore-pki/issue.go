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
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/identity"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// obtainTimeout bounds how long a command that gets one certificate or one token waits for
// the authority, with all its requests together.
const obtainTimeout = time.Minute

// issueCommand declares issue. Its action checks --token-file itself: other commands that
// share the flag do without it, and here the error says where a token comes from.
func issueCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "issue",
		Usage: "get a certificate with an enrolment token",
		Description: `Makes a private key here, sends a certificate request with the token to the authority, and
writes tls.crt (leaf first, then the chain), tls.key (0600) and ca.crt to the directory, and
crl.pem if the authority has revoked lists. The token names the service, its names and the root
to trust. After a lost answer the same command with the same token gets the same certificate.
Files that something else made are kept, and the token is not spent; neither is it if the revoked
lists cannot be fetched or do not verify.`,
		Flags: []cli.Flag{
			flags.Shared(flags.CAURL), flags.Shared(flags.TokenFile), flags.Shared(flags.AuthorityName),
			&cli.StringFlag{Name: "out", Required: true, Usage: "directory `DIR` for the files"},
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

// keyTypeFlag returns the flag for the type of a new key, of issue and of renew. It has no
// default of its own: without it a renewal keeps the type of the key that it replaces.
func keyTypeFlag() cli.Flag {
	return &cli.StringFlag{Name: "key-type", Usage: "`TYPE` of the new key: EC-P256, EC-P384, Ed25519, RSA-3072, RSA-4096 (default: that of the key there, else EC-P256)"}
}

// enrolmentConfig returns the configuration that the flags of issue and renew give, for the
// certificate in dir. It has no token yet. renew has no --root-fingerprint, and reads "" of
// it: the trust bundle in dir is its anchor. A --ca-url that is no https URL is an error of
// the command line.
func enrolmentConfig(u *ui.UI, c *cli.Context, dir string) (enroll.Config, error) {
	cfg := enroll.Config{
		URL: c.String(flags.CAURL), Dir: dir, KeyType: keyTypeOf(c.String("key-type")),
		RootFingerprint: c.String("root-fingerprint"), AuthorityName: c.String(flags.AuthorityName), Logger: u.Logger(slog.LevelWarn),
	}
	return cfg, flags.HTTPSURL(flags.CAURL, cfg.URL)
}

// keyTypeOf returns the key type of a name, and does not compare its case. An unknown name is
// returned as it is: enroll refuses it and lists the types that it has.
func keyTypeOf(text string) enroll.KeyType {
	for _, k := range enroll.KeyTypes() {
		if strings.EqualFold(string(k), text) {
			return k
		}
	}
	return enroll.KeyType(text)
}

// runIssue enrols once: it reads the token, and enroll.Issue makes a key, asks the
// authority, and stores the files in dir. It prints their paths on stdout and what it got on
// stderr.
//
// The private key is on disk before the token is sent. After a lost answer, or when it was
// killed, the same call with the same token therefore gets the same certificate; another
// key would be refused, because the token is spent. Files in dir that something else made
// are refused before the token is spent.
func runIssue(u *ui.UI, c *cli.Context, dir string) error {
	cfg, err := enrolmentConfig(u, c, dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, obtainTimeout)
	defer cancel()
	token, err := identity.ReadToken(u, c.String(flags.TokenFile)) // before anything is sent: a missing file costs nothing
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

// reportObtained says what lies in dir now: on stderr the name, end and serial of the
// certificate, on stdout one path a line, which scripts read. It also warns if others can
// replace the files. The error is that of writing to stdout.
func reportObtained(u *ui.UI, dir string, m rotation.Material) error {
	u.WarnOfReplaceable(dir)
	leaf := m.Certificate.Leaf
	u.Infof("%s: valid until %s, serial %s", leaf.Subject.CommonName, humantime.Stamp(leaf.NotAfter), certs.Serial(leaf))
	names := []string{"tls.crt", "tls.key", "ca.crt"}
	if len(m.Revoked) > 0 {
		names = append(names, "crl.pem")
	}
	for _, name := range names {
		if err := u.Outf("%s", filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// hintHeld returns err with the advice to renew, if the authority has refused the token
// (401 or 403) and dir has a certificate that is still valid. This is the mistake of an
// operator who runs the same issue twice: the token is spent, and not needed. In any other
// case it returns err as it is.
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
