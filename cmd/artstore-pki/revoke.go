package main

import (
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

func revokeCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "revoke",
		Usage:     "revoke a certificate, a lineage or a service; none of it can renew any more",
		ArgsUsage: "[SERIAL]",
		Description: `SERIAL is decimal, 0x and hex, or hex with colons. --file revokes that very certificate, and
enters it first if the record does not have it (after a restore) and an intermediate of this
authority signed it. --service and --lineage revoke a set at once: every certificate that is valid, or that could
still be renewed by the grace after its end. A set is listed with --dry-run and revoked with
--yes. A running authority sees it at once; whoever has a token can enrol anew. Reasons are
those of RFC 5280, but for holds, because a revocation is for good:
` + strings.Join(ca.Reasons(), ", ") + `.`,
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
	reason, err := ca.ParseReason(c.String("reason"))
	if err != nil {
		return withHint(usagef("--reason: %w", err), "see %s --help", helpName(c))
	}
	what, err := whatToRevoke(c)
	if err != nil {
		return err
	}
	record, err := openRecord(c.Context, c.String(flagDir), flagDir)
	if err != nil {
		return err
	}
	defer func() { _ = record.Close() }() // a revocation is committed before its call returns
	if what.set != (store.Selection{}) {
		if c.Bool("dry-run") || !c.Bool("yes") {
			return u.listSet(c, record, what.set)
		}
		err = u.revokeSet(c, record, what.set, reason)
	} else if c.Bool("dry-run") {
		err = u.showOne(c, record, what)
	} else {
		err = u.revokeOne(c, record, what, reason)
	}
	return withHint(err, "artstore-pki list prints the serials and states")
}

// doomed is what the command line names: a serial, a certificate or a set.
type doomed struct {
	serial string
	cert   *x509.Certificate
	set    store.Selection
}

func whatToRevoke(c *cli.Context) (what doomed, err error) {
	given := 0
	for _, v := range []string{c.Args().First(), c.String("file"), c.String("service"), c.String("lineage")} {
		if v != "" {
			given++
		}
	}
	if given != 1 {
		return what, usagef("want one of SERIAL, --file, --service and --lineage")
	}
	what.set = store.Selection{Service: c.String("service"), Lineage: c.String("lineage")}
	if arg := c.Args().First(); arg != "" {
		if what.serial, err = store.ParseSerial(arg); err != nil {
			return what, &usage{err}
		}
	}
	if file := c.String("file"); file != "" {
		certs, err := readCertificates(file)
		if err != nil {
			return what, err
		}
		what.cert = certs[0]
	}
	return what, nil
}

func (u *ui) revokeOne(c *cli.Context, record *ca.Record, what doomed, reason int) error {
	note := c.String("note")
	if what.cert == nil {
		if err := record.Revoke(c.Context, what.serial, reason, note); err != nil {
			return err
		}
		u.say("revoked %s (%s)", pemfile.HexSerial(what.serial), c.String("reason"))
		return nil
	}
	cert, err := record.RevokeCertificate(c.Context, what.cert, reason, note)
	if err != nil {
		return err
	}
	how := c.String("reason")
	if cert.Kind == store.Entered {
		how += ", entered: the record did not have it"
	}
	u.say("revoked %s (%s)", pemfile.HexSerial(cert.Serial), how)
	return nil
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

// showOne refuses what revokeOne would refuse.
func (u *ui) showOne(c *cli.Context, record *ca.Record, what doomed) (err error) {
	var cert store.Certificate
	if what.cert != nil {
		cert, _, err = record.Revocable(c.Context, what.cert)
	} else if cert, err = record.Show(c.Context, what.serial); err == nil && cert.Revocation != nil {
		err = fmt.Errorf("revoking %s: %w", pemfile.HexSerial(what.serial), store.ErrAlreadyRevoked)
	}
	if err != nil {
		return err
	}
	return u.print("%s %s %s", pemfile.HexSerial(cert.Serial), cert.Service, cert.NotAfter.Format(time.RFC3339))
}
