package main

import (
	"context"
	"crypto/x509"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/printable"
)

// exitFindings is the status of an audit that found something.
const exitFindings = 3

const statusesAudit = `   0    nothing to report
   1    something could not be checked; it has a row that says why
   2    the command line is wrong
   3    findings at or above --fail-on
   130  interrupted`

const (
	flagAt     = "at"
	flagFailOn = "fail-on"
)

func auditCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "audit",
		Usage:     "what expires when, and what is wrong: on disk, on the wire, in the record",
		ArgsUsage: "[FILE|DIR|HOST:PORT]...",
		Description: `Looks at every certificate in the files and directories, at what each server shows, and with
--record at the latest certificate of each service in the authority's record. Worst first. A
certificate that programs renew is judged by whether it was renewed in time, another one by
the share of its life that is left. What cannot be read or reached is a row, and ends nothing.
Chains are judged by --ca-cert; without it, by the nearest ca.crt beside or above a file.`,
		Flags: append(judgeFlags(outputTable, outputJSON),
			&cli.StringFlag{Name: "record", Usage: "state directory `DIR` of an authority, whose record is audited too"},
			&cli.StringFlag{Name: flagFailOn, Value: audit.Crit.String(), Usage: "exit with status 3 on findings from this severity up: warn or crit"},
		),
		CustomHelpTemplate: commandHelpHead + statusesAudit + "\n",
		Action:             u.runAudit,
	}
}

// judgeFlags are what audit and inspect share.
func judgeFlags(formats ...string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "ca-cert", EnvVars: []string{"TLS__CA_CERT_FILE"}, Usage: "trust bundle `FILE`, PEM, that the chains must lead to"},
		&cli.StringFlag{Name: flagAt, Usage: "judge at another `TIME` than now: 2027-01-31T12:00:00Z, or +14d from now"},
		&cli.DurationFlag{Name: "timeout", Value: 5 * time.Second, Usage: "wait this long for each server"},
		outputFlag(formats...),
	}
}

func (u *ui) runAudit(c *cli.Context) error {
	if c.Args().Len() == 0 && c.String("record") == "" {
		return usagef("nothing to audit: want a file, a directory, HOST:PORT or --record")
	}
	if f := c.String(flagOutput); f != outputTable && f != outputJSON {
		return usagef("--%s %q: want %s or %s", flagOutput, printable.Clean(f), outputTable, outputJSON)
	}
	least, err := failOn(c)
	if err != nil {
		return err
	}
	report, err := u.look(c, c.String("record"))
	if err != nil {
		return err
	}
	if c.String(flagOutput) == outputJSON {
		err = report.WriteJSON(u.out)
	} else {
		width, _ := u.terminal(u.out)
		err = report.WriteTable(u.out, width)
	}
	if err != nil {
		return err
	}
	return conclude(report, least)
}

func failOn(c *cli.Context) (audit.Severity, error) {
	for _, s := range []audit.Severity{audit.Warn, audit.Crit} {
		if c.String(flagFailOn) == s.String() {
			return s, nil
		}
	}
	return 0, usagef("--%s %q: want warn or crit", flagFailOn, printable.Clean(c.String(flagFailOn)))
}

// conclude turns a report into an exit status. Findings win over what could not
// be checked: they are certain.
func conclude(r *audit.Report, least audit.Severity) error {
	findings, unchecked := r.Count(least)
	switch {
	case findings > 0:
		return exitStatus(exitFindings)
	case unchecked > 0:
		return exitStatus(exitFailure)
	}
	return nil
}

// look audits the arguments, and the record if there is one.
func (u *ui) look(c *cli.Context, record string) (*audit.Report, error) {
	now, err := judgedAt(c.String(flagAt))
	if err != nil {
		return nil, err
	}
	bundle, err := readBundle(c.String("ca-cert"))
	if err != nil {
		return nil, err
	}
	sources := []audit.Source{audit.Targets{Names: c.Args().Slice(), Bundle: bundle, Timeout: c.Duration("timeout")}}
	if record != "" {
		r, err := openRecord(c.Context, record, "record")
		if err != nil {
			return nil, err
		}
		defer func() { _ = r.Close() }() // read only
		sources = append(sources, recordSource(r, record, now))
	}
	return audit.Run(c.Context, audit.Config{Sources: sources, Now: now})
}

// judgedAt reads --at: a point in time, or a distance from the present.
func judgedAt(text string) (func() time.Time, error) {
	if text == "" {
		return time.Now, nil
	}
	if later, ok := strings.CutPrefix(text, "+"); ok {
		if d, err := parseSpan(later); err == nil {
			return func() time.Time { return time.Now().Add(d) }, nil
		}
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, usagef("--%s %q: want a time such as 2027-01-31T12:00:00Z, or +36h, +14d", flagAt, printable.Clean(text))
	}
	return func() time.Time { return at }, nil
}

func readBundle(path string) ([]*x509.Certificate, error) {
	if path == "" {
		return nil, nil
	}
	bundle, err := readCertificates(path)
	return bundle, withHint(err, "--ca-cert wants the roots of the authority in PEM, such as the ca.crt that issue writes")
}

// recordSource shows the record of an authority to the audit, which knows no database.
func recordSource(r *ca.Record, name string, now func() time.Time) audit.Source {
	list := func(ctx context.Context, yield func(audit.Recorded) bool) error {
		query := store.Query{Limit: 1000}
		for {
			page, next, err := r.List(ctx, query)
			if err != nil {
				return err
			}
			for _, c := range page {
				if !yield(audit.Recorded{
					Service: c.Service, Lineage: c.Lineage, Names: c.Names, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
					Revoked: c.Revocation != nil, DER: c.DER,
				}) {
					return nil
				}
			}
			if next == "" {
				return nil
			}
			query.Cursor = next
		}
	}
	return audit.Record{Name: name, List: list, Now: now()}
}
