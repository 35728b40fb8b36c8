package main

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/reasons"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/records"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

func showCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:        "show",
		Usage:       "show one certificate of the record",
		ArgsUsage:   "SERIAL",
		Description: `SERIAL is decimal, 0x and hex, or hex with colons. Prints everything the record knows.`,
		Flags:       []cli.Flag{flags.Shared(flags.Dir), output.Flag(output.Text, output.JSON, output.PEM)},
		Action:      u.Action(runShow),
	}
}

// runShow needs no key and no running authority.
func runShow(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 1, 1); err != nil {
		return err
	}
	serial, err := certs.ParseSerial(c.Args().First())
	if err != nil {
		return ui.UsageErrorf("%w", err)
	}
	format, err := output.Of(c, output.Text, output.JSON, output.PEM)
	if err != nil {
		return err
	}
	record, err := records.Open(c.Context, c.String(flags.Dir), flags.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = record.Close() }() // read only
	cert, err := record.Show(c.Context, serial)
	if err != nil {
		return ui.WithHint(err, "artstore-pki list prints the serials")
	}
	return writeCertificate(u, format, cert)
}

// until is empty for a proof without an end.
func until(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return humantime.Stamp(t)
}

func writeCertificate(u *ui.UI, format string, cert record.Certificate) error {
	now := time.Now()
	r := record.NewRow(cert, now)
	switch format {
	case output.JSON:
		return u.JSON(map[string]any{"schema_version": 1, "certificate": r, "revocation": cert.Revocation})
	case output.PEM:
		chain, err := x509.ParseCertificates(slices.Concat(cert.DER, cert.Chain))
		if err != nil {
			return err
		}
		_, err = u.Out.Write(pemfile.EncodeCertificates(chain))
		return err
	}
	t := u.NewTable()
	for _, line := range [][2]string{
		{"serial", r.Serial + " (" + r.SerialHex + ")"}, {"service", r.Service}, {"state", r.State}, {"names", strings.Join(r.Names, " ")},
		{"valid from", humantime.Stamp(r.NotBefore)}, {"valid until", humantime.Stamp(r.NotAfter) + " (" + left(now, r.NotAfter) + " left)"},
		{"how", r.Kind + " by " + r.Caller}, {"lineage", r.Lineage}, {"previous", r.Previous}, {"proof until", until(r.ProofUntil)}, {"issuer key", r.Issuer}, {"public key", cert.KeyHash},
	} {
		if line[1] != "" {
			t.Row(line[0], line[1])
		}
	}
	if rev := cert.Revocation; rev != nil {
		t.Row("revoked", fmt.Sprintf("%s by %s, %s", humantime.Stamp(rev.RevokedAt), rev.Caller, reasons.Name(rev.Reason)))
	}
	return t.Flush()
}
