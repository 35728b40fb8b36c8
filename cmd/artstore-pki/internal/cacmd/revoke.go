package cacmd

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/record/reasons"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/credentials"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/records"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/certs"
)

// revokeCommand declares revoke. Its --reason takes the names of RFC 5280 §5.3.1 that are for
// good; certificateHold and removeFromCRL are refused.
func revokeCommand(u *ui.UI) *cli.Command {
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
` + strings.Join(reasons.Taken(), ", ") + `.`,
		Flags: []cli.Flag{
			flags.Shared(flags.Dir),
			&cli.StringFlag{Name: "note", Usage: "`TEXT` for the record"},
			&cli.StringFlag{Name: "file", Usage: "revoke the certificate in this `FILE` (PEM)"},
			&cli.StringFlag{Name: "service", Usage: "revoke all certificates of this `SERVICE`"},
			&cli.StringFlag{Name: "lineage", Usage: "revoke the certificate with this `SERIAL`, those it renews and those that renew it"},
			&cli.StringFlag{Name: "reason", Value: "unspecified", Usage: "why, for the record and the CRL"},
			&cli.BoolFlag{Name: "dry-run", Usage: "list what would be revoked, and change nothing"},
			&cli.BoolFlag{Name: "yes", Usage: "revoke a set without listing it first"},
		},
		Action: u.Action(runRevoke),
	}
}

// runRevoke revokes one certificate, or a set of them: a lineage or all certificates of a
// service. It lists a set, and revokes nothing, unless --yes is given, because one word on
// the command line can mean a thousand certificates. One certificate is revoked at once.
//
// The record decides (ca.Record): a certificate that is unknown, revoked already, or not of
// this authority is an error and status 1. A revocation is committed when the command says
// so; a set is revoked as a whole or not at all, also when the command is killed. A running
// authority refuses the certificates from then on, and puts them on its next list.
//
// The order of the checks is: command line, reason, target, record. What is wrong with the
// command line is said before a database is opened.
func runRevoke(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 1); err != nil {
		return err
	}
	reason, err := reasons.Parse(c.String("reason"))
	if err != nil {
		return flags.SeeHelp(c, ui.UsageErrorf("--reason: %w", err))
	}
	what, err := parseRevokeArgs(c)
	if err != nil {
		return err
	}
	rec, err := records.Open(c.Context, c.String(flags.Dir), flags.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = rec.Close() }() // a revocation is committed before its call returns
	r := revocation{
		u: u, rec: rec, what: what, reason: reason, reasonName: c.String("reason"), note: c.String("note"), dryRun: c.Bool("dry-run"),
	}
	if what.set != (record.Selection{}) {
		if r.dryRun || !c.Bool("yes") {
			return r.listSet(c.Context)
		}
		err = r.revokeSet(c.Context)
	} else if r.dryRun {
		err = r.showOne(c.Context)
	} else {
		err = r.revokeOne(c.Context)
	}
	return ui.WithHint(err, "artstore-pki list prints the serials and states")
}

// revocation is one run of the command.
type revocation struct {
	u   *ui.UI
	rec *ca.Record // open; runRevoke closes it
	// what is the target of the command line.
	what revocationTarget
	// reason is the number of RFC 5280 §5.3.1, and reasonName the same as it was typed,
	// which is what the command prints.
	reason     int
	reasonName string
	// note is free text for the record; "" is none.
	note string
	// dryRun lists what would be revoked and changes nothing.
	dryRun bool
}

// revocationTarget is what the command line names. One of the three is set.
type revocationTarget struct {
	// serial is decimal, as the record has it.
	serial string
	// cert is compared with the record as a whole, and not by its serial alone.
	cert *x509.Certificate
	// set names a service or a lineage; the zero value is no set.
	set record.Selection
}

// parseRevokeArgs returns the target of the command line. It wants exactly one of SERIAL,
// --file, --service and --lineage: two of them could contradict each other, and none must
// not mean all. Of a file with several certificates the first one counts, which is the leaf
// of a chain.
func parseRevokeArgs(c *cli.Context) (what revocationTarget, err error) {
	given := 0
	for _, v := range []string{c.Args().First(), c.String("file"), c.String("service"), c.String("lineage")} {
		if v != "" {
			given++
		}
	}
	if given != 1 {
		return what, ui.UsageErrorf("want one of SERIAL, --file, --service and --lineage")
	}
	what.set = record.Selection{Service: c.String("service"), Lineage: c.String("lineage")}
	if arg := c.Args().First(); arg != "" {
		if what.serial, err = certs.ParseSerial(arg); err != nil {
			return what, ui.UsageErrorf("%w", err)
		}
	}
	if file := c.String("file"); file != "" {
		certs, err := credentials.ReadChain(file)
		if err != nil {
			return what, err
		}
		what.cert = certs[0]
	}
	return what, nil
}

// revokeOne revokes the certificate with a serial, or the certificate in a file. The record
// may not have the one in the file, because it was restored from an older backup. If an
// intermediate of this authority signed it, it is entered into the record and revoked in one
// transaction, and the output says so.
func (r revocation) revokeOne(ctx context.Context) error {
	if r.what.cert == nil {
		if err := r.rec.Revoke(ctx, r.what.serial, r.reason, r.note); err != nil {
			return err
		}
		r.u.Infof("revoked %s (%s)", certs.HexSerial(r.what.serial), r.reasonName)
		return nil
	}
	cert, err := r.rec.RevokeCertificate(ctx, r.what.cert, r.reason, r.note)
	if err != nil {
		return err
	}
	how := r.reasonName
	if cert.Kind == kinds.Entered {
		how += ", entered: the record did not have it"
	}
	r.u.Infof("revoked %s (%s)", certs.HexSerial(cert.Serial), how)
	return nil
}

// revokeSet revokes all certificates of a set in one transaction, and prints how many they
// were. An empty set is an error: the name is wrong, or nothing of the set can be used any more.
func (r revocation) revokeSet(ctx context.Context) error {
	n, err := r.rec.RevokeSet(ctx, r.what.set, r.reason, r.note)
	if err != nil {
		return err
	}
	r.u.Infof("revoked %d certificates (%s)", n, r.reasonName)
	return nil
}

// listSet prints the certificates of a set, one a line. Without --dry-run it also returns an
// error of the command line, status 2, because the operator meant to revoke and nothing was
// revoked: a script that forgot --yes must not believe that it is done.
func (r revocation) listSet(ctx context.Context) error {
	list, err := r.rec.Selected(ctx, r.what.set)
	if err != nil {
		return ui.WithHint(err, "artstore-pki list prints the serials and states")
	}
	for _, cert := range list {
		if err := r.u.Outf("%s %s %s", certs.HexSerial(cert.Serial), cert.Service, cert.NotAfter.Format(time.RFC3339)); err != nil {
			return err
		}
	}
	if r.dryRun {
		r.u.Infof("%d certificates would be revoked", len(list))
		return nil
	}
	return ui.WithHint(ui.UsageErrorf("%d certificates would be revoked", len(list)), "nothing was revoked; --yes does it")
}

// showOne prints the certificate that revokeOne would revoke, and returns the error that
// revokeOne would return. It is --dry-run for one certificate.
func (r revocation) showOne(ctx context.Context) (err error) {
	var cert record.Certificate
	if r.what.cert != nil {
		cert, _, err = r.rec.Revocable(ctx, r.what.cert)
	} else if cert, err = r.rec.Show(ctx, r.what.serial); err == nil && cert.Revocation != nil {
		err = fmt.Errorf("revoking %s: %w", certs.HexSerial(r.what.serial), store.ErrAlreadyRevoked)
	}
	if err != nil {
		return err
	}
	return r.u.Outf("%s %s %s", certs.HexSerial(cert.Serial), cert.Service, cert.NotAfter.Format(time.RFC3339))
}
