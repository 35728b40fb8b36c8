package main

import (
	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/certs"
)

// fingerprintCommand declares fingerprint and runs it. It prints the SHA-256 of the root that
// signs now, over its DER form and in hex. A new client recognizes the authority by it
// (docs/design/0003-bootstrap-without-insecureskipverify.md). After a root rotation the
// fingerprint is another one. Tokens contain it, so only clients that were configured with it
// by hand need the new one. It needs no password and no running authority.
func fingerprintCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "fingerprint",
		Usage: "print the fingerprint of the authority's root",
		Description: `Prints the SHA-256 of the active root certificate in hex, as step ca bootstrap
--fingerprint wants it.`,
		Flags: []cli.Flag{flags.Shared(flags.Dir)},
		Action: func(c *cli.Context) error {
			if err := flags.WantArgs(c, 0, 0); err != nil {
				return err
			}
			root, err := activeRoot(c.String(flags.Dir))
			if err != nil {
				return err
			}
			return u.Outf("%s", certs.Fingerprint(root))
		},
	}
}
