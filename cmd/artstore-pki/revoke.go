package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
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
		Usage:     "revoke a certificate, a lineage or a service; none of it can renew any more",
		ArgsUsage: "[SERIAL]",
		Description: `SERIAL is decimal, 0x and hex, or hex with colons; --file takes it from a certificate.
--service and --lineage revoke a set at once: every certificate that is valid, or that could
still be renewed by the grace after its end. A set is listed with --dry-run and revoked with
--yes. A running authority sees it at once; whoever has a token can enrol anew. Reasons are
those of RFC 5280: unspecified, keyCompromise, affiliationChanged, superseded,
cessationOfOperation.`,
		Flags: []cli.Flag{
			dirFlag(),
			&cli.StringFlag{Name: "note", Usage: "`TEXT` for the record"},
			&cli.StringFlag{Name: "file", Usage: "revoke the certificate in this `FILE` (PEM)"},
			&cli.StringFlag{Name: "service", Usage: "revoke all certificates of this `SERVICE`"},
			&cli.StringFlag{Name: "lineage", Usage: "revoke the certificate with this `SERIAL`, those it renews and those that renew it"},
			&cli.StringFlag{Name: "reason", Value: "unspecified", Usage: "why, for the record and the CRL"},
			&cli.BoolFlag{Name: "dry-run", Usage: "list what would be revoked, and change nothing"},
			&cli.BoolFlag{Name: "yes", Usage: "revoke a set without listing it first"},
		},
		Action: u.runRevoke,
	}
}

func (u *ui) runRevoke(c *cli.Context) error {
	if err := wantArgs(c, 0, 1); err != nil {
		return err
	}
	reason := slices.Index(reasons[:], c.String("reason"))
	if reason < 0 || c.String("reason") == "" {
		return withHint(usagef("--reason %q is not one of RFC 5280", printable.Clean(c.String("reason"))), "see %s --help", helpName(c))
	}
	serial, set, err := whatToRevoke(c)
	if err != nil {
		return err
	}
	record, err := openRecord(c.Context, c.String(flagDir), flagDir)
	if err != nil {
		return err
	}
	defer func() { _ = record.Close() }() // a revocation is committed before its call returns
	switch {
	case serial == "" && c.Bool("yes") && !c.Bool("dry-run"):
		err = u.revokeSet(c, record, set, reason)
	case serial == "":
		return u.listSet(c, record, set)
	case c.Bool("dry-run"):
		return u.showOne(c, record, serial)
	default:
		if err = record.Revoke(c.Context, serial, reason, c.String("note")); err == nil {
			u.say("revoked %s (%s)", pemfile.HexSerial(serial), c.String("reason"))
		}
	}
	return withHint(err, "artstore-pki list prints the serials and states")
}

// whatToRevoke is one serial or one set.
func whatToRevoke(c *cli.Context) (serial string, set store.Selection, err error) {
	given := 0
	for _, v := range []string{c.Args().First(), c.String("file"), c.String("service"), c.String("lineage")} {
		if v != "" {
			given++
		}
	}
	if given != 1 {
		return "", set, usagef("want one of SERIAL, --file, --service and --lineage")
	}
	set = store.Selection{Service: c.String("service"), Lineage: c.String("lineage")}
	if set != (store.Selection{}) {
		return "", set, nil
	}
	serial, err = serialArgument(c)
	return serial, set, err
}

func (u *ui) revokeSet(c *cli.Context, record *ca.Record, set store.Selection, reason int) error {
	n, err := record.RevokeSet(c.Context, set, reason, c.String("note"))
	if err != nil {
		return err
	}
	u.say("revoked %d certificates (%s)", n, c.String("reason"))
	return nil
}

// listSet prints what a set is. Without --dry-run that is a refusal: somebody
// meant to revoke, and nothing was revoked.
func (u *ui) listSet(c *cli.Context, record *ca.Record, set store.Selection) error {
	list, err := record.Selected(c.Context, set)
	if err != nil {
		return withHint(err, "artstore-pki list prints the serials and states")
	}
	for _, cert := range list {
		if err := u.print("%s %s %s", pemfile.HexSerial(cert.Serial), cert.Service, cert.NotAfter.Format(time.RFC3339)); err != nil {
			return err
		}
	}
	if c.Bool("dry-run") {
		u.say("%d certificates would be revoked", len(list))
		return nil
	}
	return withHint(usagef("%d certificates would be revoked", len(list)), "nothing was revoked; --yes does it")
}

func (u *ui) showOne(c *cli.Context, record *ca.Record, serial string) error {
	cert, err := record.Show(c.Context, serial)
	if err != nil {
		return withHint(err, "artstore-pki list prints the serials and states")
	}
	return u.print("%s %s %s", pemfile.HexSerial(cert.Serial), cert.Service, cert.NotAfter.Format(time.RFC3339))
}

func serialArgument(c *cli.Context) (string, error) {
	file, arg := c.String("file"), c.Args().First()
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
