package main

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/printable"
)

func showCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:        "show",
		Usage:       "show one certificate of the record",
		ArgsUsage:   "SERIAL",
		Description: `SERIAL is decimal, 0x and hex, or hex with colons. Prints everything the record knows.`,
		Flags:       []cli.Flag{dirFlag(), outputFlag(outputText, outputJSON, outputPEM)},
		Action:      u.runShow,
	}
}

func (u *ui) runShow(c *cli.Context) error {
	if err := wantArgs(c, 1, 1); err != nil {
		return err
	}
	serial, err := store.ParseSerial(c.Args().First())
	if err != nil {
		return &usage{err}
	}
	record, err := openRecord(c.Context, c.String(flagDir), flagDir)
	if err != nil {
		return err
	}
	defer func() { _ = record.Close() }() // read only
	cert, err := record.Show(c.Context, serial)
	if err != nil {
		return withHint(err, "artstore-pki list prints the serials")
	}
	return u.writeCertificate(c.String(flagOutput), cert)
}

// until is empty for a proof without an end.
func until(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.DateTime)
}

func (u *ui) writeCertificate(format string, cert store.Certificate) error {
	now := time.Now()
	r := ca.NewRow(cert, now)
	switch format {
	case outputJSON:
		return u.writeJSON(map[string]any{"schema_version": 1, "certificate": r, "revocation": cert.Revocation})
	case outputPEM:
		chain, err := x509.ParseCertificates(slices.Concat(cert.DER, cert.Chain))
		if err != nil {
			return err
		}
		_, err = u.out.Write(pemfile.EncodeCertificates(chain))
		return err
	case outputText:
	default:
		return usagef("--%s %q: want text, %s or pem", flagOutput, printable.Clean(format), outputJSON)
	}
	w := tabwriter.NewWriter(u.out, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"serial", r.Serial + " (" + r.SerialHex + ")"}, {"service", r.Service}, {"state", r.State}, {"names", strings.Join(r.Names, " ")},
		{"valid from", r.NotBefore.Local().Format(time.DateTime)}, {"valid until", r.NotAfter.Local().Format(time.DateTime) + " (" + left(r.NotAfter.Sub(now)) + " left)"},
		{"how", r.Kind + " by " + r.Caller}, {"lineage", r.Lineage}, {"previous", r.Previous}, {"proof until", until(r.ProofUntil)}, {"issuer key", r.Issuer}, {"public key", cert.KeyHash},
	} {
		if line[1] != "" {
			_, _ = fmt.Fprintf(w, "%s\t%s\n", line[0], printable.Clean(line[1])) // Flush keeps the error
		}
	}
	if rev := cert.Revocation; rev != nil {
		_, _ = fmt.Fprintf(w, "revoked\t%s by %s, %s\n", rev.RevokedAt.Local().Format(time.DateTime), printable.Clean(rev.Caller), ca.ReasonName(rev.Reason))
	}
	return w.Flush()
}
