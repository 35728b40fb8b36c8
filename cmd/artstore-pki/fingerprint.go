package main

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/credentials"
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
		Name:      "fingerprint",
		Usage:     "print the fingerprint of the authority's root",
		ArgsUsage: "[FILE|DIR]",
		Description: `Prints the SHA-256 of the active root certificate in hex, as step ca bootstrap
--fingerprint wants it. With FILE, or the DIR of an identity, it prints those of the
certificates of that trust bundle, one a line.`,
		Flags: []cli.Flag{flags.Shared(flags.Dir)},
		Action: func(c *cli.Context) error {
			if err := flags.WantArgs(c, 0, 1); err != nil {
				return err
			}
			roots, err := rootsOf(c)
			if err != nil {
				return err
			}
			for _, root := range roots {
				if err := u.Outf("%s", certs.Fingerprint(root)); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// rootsOf returns the certificates whose fingerprints are asked for.
func rootsOf(c *cli.Context) ([]*x509.Certificate, error) {
	bundle := c.Args().First()
	if bundle == "" {
		root, err := activeRoot(c.String(flags.Dir))
		return []*x509.Certificate{root}, err
	}
	if c.IsSet(flags.Dir) {
		return nil, ui.UsageErrorf("--%s is another root than that of %s: give one of them", flags.Dir, bundle)
	}
	if info, err := os.Stat(bundle); err == nil && info.IsDir() {
		bundle = filepath.Join(bundle, "ca.crt")
	}
	roots, err := credentials.ReadChain(bundle)
	if err != nil {
		return nil, fmt.Errorf("reading the trust bundle: %w", err)
	}
	return roots, nil
}
