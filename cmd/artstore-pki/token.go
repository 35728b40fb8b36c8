package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/internal/secret"
)

func tokenCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "token",
		Usage:     "make a one-time enrolment token for a service",
		ArgsUsage: "SERVICE [NAME...]",
		Description: `Prints a token that lets one key get one certificate for SERVICE: the names given, or all
names of its profile in pki.yaml. The token is bound to these names and to the fingerprint
of the root, lives minutes, and works once. It is a secret: pass it on through a file.`,
		Flags: []cli.Flag{
			dirFlag(), passwordFileFlag(),
			spanFlag("lifetime", 5*time.Minute, "how long the token may be used"),
			&cli.StringFlag{Name: "provisioner", Usage: "sign with the enrolment key of this `NAME` in pki.yaml (default: the first that is for SERVICE)"},
			&cli.BoolFlag{Name: "revoke", Usage: "make a token to revoke the certificate with serial SERVICE instead (for step ca revoke --token)"},
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1, -1); err != nil {
				return err
			}
			token, err := u.mintToken(c, c.Args().First(), c.Args().Tail())
			if err != nil {
				return err
			}
			return u.print("%s", token.Expose())
		},
	}
}

const hintProfiles = "services and their names are the profiles in pki.yaml of --dir"

// mintToken signs a token with the enrolment key of the state directory.
func (u *ui) mintToken(c *cli.Context, service string, names []string) (secret.String, error) {
	pw, err := u.password(c)
	if err != nil {
		return secret.String{}, err
	}
	token, err := ca.NewToken(c.Context, ca.TokenOptions{
		Dir: c.String(flagDir), Password: pw,
		Service: service, Names: names,
		Lifetime: spanOf(c, "lifetime"), Revoke: c.Bool("revoke"), Provisioner: c.String("provisioner"),
	})
	if err != nil {
		return token, hintStateDir(fmt.Errorf("making a token for %s: %w", service, err), c.String(flagDir), hintProfiles)
	}
	return token, nil
}
