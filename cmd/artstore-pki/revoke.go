package main

import (
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/printable"
)

// reasons are the names of RFC 5280 §5.3.1, by their number; the empty ones are
// not used (7) or not for an operator to give (8, which undoes a hold).
var reasons = [...]string{
	"unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded",
	"cessationOfOperation", "certificateHold", "", "", "privilegeWithdrawn", "aACompromise",
}

func reasonName(code int) string {
	if code < 0 || code >= len(reasons) || reasons[code] == "" {
		return fmt.Sprintf("reason %d", code)
	}
	return reasons[code]
}

func revokeCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "revoke",
		Usage:     "revoke a certificate; its lineage cannot renew any more",
		ArgsUsage: "[SERIAL]",
		Description: `SERIAL is decimal, 0x and hex, or hex with colons; --file takes it from a certificate. A
running authority sees it at once. Reasons are those of RFC 5280: unspecified, keyCompromise,
affiliationChanged, superseded, cessationOfOperation.`,
		Flags: []cli.Flag{
			dirFlag(),
			&cli.StringFlag{Name: "note", Usage: "`TEXT` for the record"},
			&cli.StringFlag{Name: "file", Usage: "revoke the certificate in this `FILE` (PEM)"},
			&cli.StringFlag{Name: "reason", Value: "unspecified", Usage: "why, for the record and the CRL"},
		},
		Action: u.runRevoke,
	}
}

func (u *ui) runRevoke(c *cli.Context) error {
	if err := wantArgs(c, 0, 1); err != nil {
		return err
	}
	serial, err := serialArgument(c)
	if err != nil {
		return err
	}
	reason := slices.Index(reasons[:], c.String("reason"))
	if reason < 0 || c.String("reason") == "" {
		return withHint(usagef("--reason %q is not one of RFC 5280", printable.Clean(c.String("reason"))), "see %s --help", helpName(c))
	}
	record, err := openRecord(c.Context, c.String(flagDir), flagDir)
	if err != nil {
		return err
	}
	defer func() { _ = record.Close() }() // the revocation is committed before Revoke returns
	if err := record.Revoke(c.Context, serial, reason, c.String("note")); err != nil {
		return withHint(err, "artstore-pki list prints the serials and states")
	}
	u.say("revoked %s (%s)", pemfile.HexSerial(serial), c.String("reason"))
	return nil
}

func serialArgument(c *cli.Context) (string, error) {
	file, arg := c.String("file"), c.Args().First()
	if (file == "") == (arg == "") {
		return "", usagef("want either SERIAL or --file")
	}
	if arg != "" {
		serial, err := store.ParseSerial(arg)
		if err != nil {
			return "", &usage{err}
		}
		return serial, nil
	}
	certs, err := readCertificates(file)
	if err != nil {
		return "", err
	}
	return certs[0].SerialNumber.String(), nil
}
