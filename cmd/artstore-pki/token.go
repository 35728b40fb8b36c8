package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/credentials"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/hints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// tokenCommand declares token. Its --out is a file rather than a redirection because the
// file is private (0600) from its first byte on. Without it, the token is the only line on
// stdout.
func tokenCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:      "token",
		Usage:     "make a one-time enrolment token for a service",
		ArgsUsage: "SERVICE [NAME...]",
		Description: `Prints a token that lets one key get one certificate for SERVICE: the names given, or all
names of its profile in pki.yaml. The token is bound to these names and to the fingerprint
of the root, lives minutes, and works once. It is a secret: pass it on through a file.

It is signed with the enrolment key in the state directory. With --cert, the running
authority is asked for it over mutual TLS: the certificate is that of a service which
"enrollers" of pki.yaml allows to enrol SERVICE.`,
		Flags: []cli.Flag{
			flags.Shared(flags.Dir), flags.Shared(flags.PasswordFile),
			flags.Shared(flags.CAURL),
			&cli.StringFlag{Name: credentials.Cert, Usage: "ask the authority with this certificate: a `DIR` that issue wrote, or a file with --key and --ca-cert"},
			&cli.StringFlag{Name: credentials.Key, Usage: "private key `FILE` of --cert, PEM"},
			&cli.StringFlag{Name: credentials.CACert, Usage: "trust bundle `FILE` for the authority, PEM"},
			&cli.StringFlag{Name: "out", Usage: "write the token to `FILE` (0600) instead of standard output"},
			values.DurationFlag("lifetime", 5*time.Minute, "how long the token may be used"),
			&cli.StringFlag{Name: "provisioner", Usage: "sign with the enrolment key of this `NAME` in pki.yaml (default: the first that is for SERVICE)"},
			&cli.BoolFlag{Name: "revoke", Usage: "make a token to revoke the certificate with serial SERVICE instead (for step ca revoke --token)"},
		},
		Action: func(c *cli.Context) error {
			if err := flags.WantArgs(c, 1, -1); err != nil {
				return err
			}
			token, err := makeToken(u, c)
			if err != nil {
				return err
			}
			if out := c.String("out"); out != "" {
				return durable.WriteFile(out, []byte(token.Expose()+"\n"), durable.Private)
			}
			return u.Outf("%s", token.Expose())
		},
	}
}

// makeToken returns the token, made here or asked for at the authority: --cert decides
// which. Flags that belong to the other way are an error of the command line, so that
// nobody believes that a token came from an authority when it was signed here.
func makeToken(u *ui.UI, c *cli.Context) (secret.String, error) {
	service, names := c.Args().First(), c.Args().Tail()
	if c.String(credentials.Cert) != "" {
		return askToken(u, c, service, names)
	}
	for _, flag := range []string{credentials.Key, credentials.CACert} {
		if c.String(flag) != "" {
			return secret.String{}, ui.UsageErrorf("--%s goes with --%s", flag, credentials.Cert)
		}
	}
	if flags.CAURLGiven(u, c) {
		return secret.String{}, ui.UsageErrorf("--%s goes with --%s: without a certificate, the token is made from --%s", flags.CAURL, credentials.Cert, flags.Dir)
	}
	return mintToken(u, c, service, names)
}

// askToken returns a token of a running authority, which it asks over mutual TLS with the
// certificate of an enroller (docs/design/0021-enrollers.md). The authority decides
// whether this enroller may enrol that service, and records the token. The request is given
// up after a minute.
//
// --revoke and --provisioner are refused beside --cert: the API of the authority has
// neither.
func askToken(_ *ui.UI, c *cli.Context, service string, names []string) (secret.String, error) {
	for _, flag := range []string{"revoke", "provisioner"} {
		if c.IsSet(flag) {
			return secret.String{}, ui.UsageErrorf("--%s does not go with --%s", flag, credentials.Cert)
		}
	}
	if err := flags.HTTPSURL(flags.CAURL, c.String(flags.CAURL)); err != nil {
		return secret.String{}, err
	}
	cert, roots, err := credentials.FilesOf(c).Read()
	if err != nil {
		return secret.String{}, err
	}
	client, err := enroll.NewClient(c.String(flags.CAURL), roots, cert)
	if err != nil {
		return secret.String{}, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(c.Context, obtainTimeout)
	defer cancel()
	token, err := client.EnrolmentToken(ctx, stepapi.TokenRequest{Service: service, Names: names, Lifetime: values.DurationOf(c, "lifetime").String()})
	if err == nil {
		return token, nil
	}
	return token, hints.Refused(fmt.Errorf("making a token for %s: %w", service, err), "enrollers and profiles in pki.yaml of the authority say who may enrol what")
}
