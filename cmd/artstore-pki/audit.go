package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/humantime"
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
	flagAt      = "at"
	flagFailOn  = "fail-on"
	flagWarn    = "warn"
	flagCrit    = "crit"
	flagOnly    = "only"
	flagDisable = "disable"

	flagInclude       = "include"
	flagExclude       = "exclude"
	flagMaxLifetime   = "max-lifetime"
	flagCRL           = "crl"
	flagBaseline      = "baseline"
	flagWriteBaseline = "write-baseline"
)

// severities that --fail-on takes.
var severities = []audit.Severity{audit.Info, audit.Warn, audit.Crit}

// auditFormats are all but those of inspect.
func auditFormats() []string {
	return slices.DeleteFunc(audit.Formats(), func(f string) bool { return f == outputText || f == outputPEM })
}

func auditCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "audit",
		Usage:     "what expires when, and what is wrong: on disk, on the wire, in the record",
		ArgsUsage: "[FILE|DIR|HOST:PORT|URL|@LIST|-]...",
		Description: `Looks at every certificate in the files and directories, at what each server shows, and with
--record at the latest certificate of each service in the authority's record. Worst first. A
certificate that programs renew is judged by whether it was renewed in time, another one by
the share of its life that is left. What cannot be read or reached is a row, and ends nothing.
@LIST is a file with one target a line, - a file on standard input. URL is postgres://, smtp:// or
https://HOST[:PORT]; of the first two, servers are asked for TLS as their protocols have it.
Files are PEM, DER, PKCS #12, PKCS #7, kubeconfigs, and Secrets and ConfigMaps in YAML or JSON.
Chains are judged by --ca-cert; without it, by the nearest ca.crt beside or above a file.
With --record, or with paths and servers, they are compared: what a server shows although it was
replaced, what is in use and not in the record, what was issued and is found nowhere.
--checks lists the checks and what to do about each. -o prom is for the node exporter's textfile collector,
-o html one page for people that needs nothing else.`,
		Flags: append(judgeFlags(auditFormats()...),
			&cli.StringFlag{Name: "record", Usage: "state directory `DIR` of an authority, whose record is audited too"},
			&cli.StringSliceFlag{Name: flagInclude, Usage: "of directories, look only at files that match `GLOB`: *.crt, or prod/**/*.pem below what was named; may be repeated"},
			&cli.StringSliceFlag{Name: flagExclude, Usage: "of directories, leave out files and directories that match `GLOB`; may be repeated"},
			&cli.StringFlag{Name: flagFailOn, Value: audit.Crit.String(), Usage: "exit with status 3 on findings from this `SEVERITY` up: info, warn or crit"},
			thresholdFlag(flagWarn, "warn this long `BEFORE` the end of what people renew, or at this share of its life: 60d, 25% (default: 30d or a third, what comes later)"),
			thresholdFlag(flagCrit, "the same for critical findings, `BEFORE` the end (default: 7d or a sixth, what comes later)"),
			&cli.GenericFlag{Name: flagMaxLifetime, Value: &span{}, DefaultText: "any", Usage: "warn about leaves that live longer than this `TIME`, such as 90d"},
			&cli.StringSliceFlag{Name: flagCRL, Usage: "revocation list `FILE`, PEM or DER, to judge certificates by; may be repeated"},
			&cli.StringFlag{Name: flagBaseline, Usage: "leave out the findings that this `FILE` accepts"},
			&cli.StringFlag{Name: flagWriteBaseline, Usage: "write a baseline that accepts all findings of this run to `FILE`"},
			&cli.StringSliceFlag{Name: flagOnly, Usage: "run only the check `ID`; may be repeated"},
			&cli.StringSliceFlag{Name: flagDisable, Usage: "leave out the check `ID`; may be repeated"},
			&cli.BoolFlag{Name: "checks", Usage: "list the checks, with what to do about each, and end"},
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
		&cli.StringSliceFlag{Name: flagPasswordFile, Usage: "`FILE` with a password to try on PKCS #12 stores, after the empty one; may be repeated"},
		&cli.StringFlag{Name: flagServerName, Usage: "ask servers for `NAME`, and want it in their certificates, instead of the host in their address"},
		&cli.StringFlag{Name: flagCert, Usage: "`FILE` with the client certificate and its chain, PEM, for servers that ask for one and pass --ca-cert"},
		&cli.StringFlag{Name: flagKey, Usage: "`FILE` with the key of --cert, PEM"},
		spanFlag("timeout", 5*time.Second, "wait this long for each server"),
		outputFlag(formats...),
	}
}

func (u *ui) runAudit(c *cli.Context) error {
	if c.Bool("checks") {
		return u.listChecks()
	}
	if c.Args().Len() == 0 && c.String("record") == "" {
		return usagef("nothing to audit: want a file, a directory, HOST:PORT or --record")
	}
	format := c.String(flagOutput)
	if !slices.Contains(auditFormats(), format) {
		return usagef("--%s %q: want one of %s", flagOutput, printable.Clean(format), strings.Join(auditFormats(), ", "))
	}
	least, err := failOn(c)
	if err != nil {
		return err
	}
	summary, err := u.look(c, format, c.String("record"))
	if err != nil {
		return err
	}
	return conclude(summary, least)
}

func (u *ui) listChecks() error {
	for _, c := range audit.Checks() {
		if err := u.print("%-16s %-4s  %s (%s)", c.Check, c.Severity, c.Remedy, c.Cites); err != nil {
			return err
		}
	}
	return nil
}

// checkIDs reads a flag that names checks.
func checkIDs(c *cli.Context, flag string) ([]string, error) {
	var known []string
	for _, f := range audit.Checks() {
		known = append(known, f.Check)
	}
	ids := c.StringSlice(flag)
	for _, id := range ids {
		if !slices.Contains(known, id) {
			return nil, withHint(usagef("--%s %q: there is no such check", flag, printable.Clean(id)), "known ids: %s", strings.Join(known, ", "))
		}
	}
	return ids, nil
}

func failOn(c *cli.Context) (audit.Severity, error) {
	for _, s := range severities {
		if c.String(flagFailOn) == s.String() {
			return s, nil
		}
	}
	return 0, usagef("--%s %q: want info, warn or crit", flagFailOn, printable.Clean(c.String(flagFailOn)))
}

// conclude turns a summary into an exit status. Findings win over what could not
// be checked: they are certain.
func conclude(s *audit.Summary, least audit.Severity) error {
	findings, unchecked := s.Count(least)
	switch {
	case findings > 0:
		return exitStatus(exitFindings)
	case unchecked > 0:
		return exitStatus(exitFailure)
	}
	return nil
}

// look audits the arguments, and the record if there is one, and writes the report.
func (u *ui) look(c *cli.Context, format, record string) (*audit.Summary, error) {
	cfg, err := u.auditConfig(c)
	if err != nil {
		return nil, err
	}
	if record != "" {
		r, err := openRecord(c.Context, record, "record")
		if err != nil {
			return nil, err
		}
		defer func() { _ = r.Close() }() // read only
		cfg.Sources = append(cfg.Sources, recordSource(r, record, cfg.Now))
	}
	width, _ := u.terminal(u.out)
	if cfg.Report, err = audit.NewRenderer(format, u.out, audit.Terminal{Width: width, Colour: u.colour(u.out), Program: "artstore-pki " + version()}); err != nil {
		return nil, err
	}
	if width, ok := u.terminal(u.err); ok && u.quietUntilEnd(format) {
		p := newProgress(cfg.Report, u.err, width)
		defer p.stop()
		cfg.Report = p
	}
	return u.accept(c, cfg)
}

// quietUntilEnd reports whether a progress line can share the terminal: rows
// that are printed as they come would end up in it.
func (u *ui) quietUntilEnd(format string) bool {
	_, shared := u.terminal(u.out)
	return !shared || format == outputTable || format == outputWide || format == outputText
}

// judgedAt reads --at: a point in time, or a distance from the present.
func judgedAt(text string) (func() time.Time, error) {
	if text == "" {
		return time.Now, nil
	}
	if later, ok := strings.CutPrefix(text, "+"); ok {
		if d, err := humantime.Parse(later); err == nil {
			return func() time.Time { return time.Now().Add(d) }, nil
		}
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, usagef("--%s %q: want a time such as 2027-01-31T12:00:00Z, or +36h, +14d", flagAt, printable.Clean(text))
	}
	return func() time.Time { return at }, nil
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
					Revoked: c.Revocation != nil, DER: c.DER, Chain: c.Chain,
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
