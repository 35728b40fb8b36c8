package cacmd

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
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// showCommand declares show, which looks at the record of an authority. inspect explains the
// certificates of files and servers.
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

// runShow prints one certificate of the record, with its revocation if there is one. It
// needs no password and no running authority. A serial that cannot be read is an error of
// the command line, one that the record does not have is status 1.
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

// until returns when a proof ends, or "" for a proof without an end. No renewal of a
// certificate may end after the proof that its lineage rests on
// (docs/design/0019-bounded-lineages.md).
func until(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return humantime.Stamp(t)
}

// servedAt returns since when and where a certificate is served, as its agent has reported, or ""
// if no agent has.
func servedAt(s *stepapi.Served) string {
	if s == nil {
		return ""
	}
	text := humantime.Stamp(s.Since) + " at " + s.Address
	if s.Servers > 1 {
		text += fmt.Sprintf(" and %d more", s.Servers-1)
	}
	return text
}

// writeCertificate prints a certificate in one of three formats: what the record says of it
// as text or as JSON, or the certificate itself with its chain as PEM, leaf first, which a
// server can use as it is. In the text, lines without a value are left out.
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
		{"how", r.Kind + " by " + r.Caller}, {"lineage", r.Lineage}, {"previous", r.Previous}, {"proof until", until(r.ProofUntil)}, {"served since", servedAt(r.Served)}, {"issuer key", r.Issuer}, {"public key", cert.KeyHash},
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
