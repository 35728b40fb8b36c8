package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/certs"
)

func fingerprintCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "fingerprint",
		Usage: "print the fingerprint of the authority's root",
		Description: `Prints the SHA-256 of the active root certificate in hex, as step ca bootstrap
--fingerprint wants it.`,
		Flags: []cli.Flag{sharedFlag(flagDir)},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 0); err != nil {
				return err
			}
			root, err := ca.ActiveRoot(c.String(flagDir))
			if err != nil {
				return hintStateDir(fmt.Errorf("reading the root: %w", err), c.String(flagDir), hintDoctor)
			}
			return u.Outf("%s", certs.Fingerprint(root))
		},
	}
}
