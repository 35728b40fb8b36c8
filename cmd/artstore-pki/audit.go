package main

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/report"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/credentials"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/printable"
)

// statusesAudit ends the help of audit.
const statusesAudit = `   0    nothing to report
   1    something could not be checked; it has a row that says why
   2    the command line is wrong
   3    findings at or above --fail-on
   130  interrupted`

// Flags of audit. inspect has --at as well, and audit diff --fail-on.
const (
	flagAt      = "at"
	flagFailOn  = "fail-on"
	flagWarn    = "warn"
	flagCrit    = "crit"
	flagOnly    = "only"
	flagDisable = "disable"

	flagFast          = "fast"
	flagInclude       = "include"
	flagExclude       = "exclude"
	flagMaxLifetime   = "max-lifetime"
	flagCRL           = "crl"
	flagBaseline      = "baseline"
	flagWriteBaseline = "write-baseline"
	flagExplain       = "explain"
)

// severities are the values of --fail-on, the lowest first.
var severities = []audit.Severity{audit.Info, audit.Warn, audit.Crit}

// auditFormats returns the formats of audit: all of the package report but the two for
// people who look at one certificate, which inspect has. The first one is the default.
func auditFormats() []string {
	return slices.DeleteFunc(report.Formats(), func(f string) bool { return f == output.Text || f == output.PEM })
}

// auditCommand declares audit, and audit diff below it. Its flags are those that inspect has
// as well, and those that make sense for many places only.
func auditCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:      "audit",
		Usage:     "what expires when, and what is wrong: on disk, on the wire, in the record",
		ArgsUsage: "[FILE|DIR|HOST:PORT|URL|@LIST|-]...",
		Description: `Looks at every certificate in the files and directories, at what each server shows, and with
--record at the latest certificate of each service in the authority's record. Worst first. A
certificate that programs renew is judged by whether it was renewed in time, another one by
the share of its life that is left. What cannot be read or reached is a row, and ends nothing.
A server is asked up to five times more, for old versions and for further certificates.
@LIST is a file with one target a line, - a file on standard input, 'DIR/**/*.pem' what matches. URL is
SCHEME://HOST[:PORT]: postgres, mysql, smtp, imap, pop3, ldap and ftp are asked for TLS as their
protocols have it; https, ldaps, imaps, smtps and others speak it at once, and so does HOST:PORT.
Files are PEM, DER, PKCS #12, PKCS #7, JKS, certificates of SSH, JSON Web Keys, kubeconfigs, and objects of
Kubernetes in YAML or JSON. A store that cannot be read is a row that says what it is and what converts it.
Chains are judged by --ca-cert; without it, by the nearest ca.crt, ca.pem or root_ca.crt beside a
file or above it, up to what was named.
With --record, or with paths and servers, they are compared: what a server shows although it was
replaced, what is in use and not in the record, what was issued and is found nowhere.
"artstore-pki audit diff" compares two reports. --checks lists the checks and what to do.
-o prom is for the node exporter's textfile collector, -o html one page for people that needs nothing else.`,
		Flags: append(judgeFlags(auditFormats()...),
			&cli.StringFlag{Name: flagRecord, Usage: "audit the record of an authority too: its state directory `DIR`, or https://HOST:PORT with --cert of one of its auditors"},
			&cli.StringSliceFlag{Name: flagInclude, Usage: "of directories, look only at files that match `GLOB`: *.crt, or prod/**/*.pem below what was named; may be repeated"},
			&cli.StringSliceFlag{Name: flagExclude, Usage: "of directories, leave out files and directories that match `GLOB`; may be repeated"},
			&cli.BoolFlag{Name: flagFast, Usage: "connect to each server once: do not ask for old versions of TLS, nor for certificates with other algorithms"},
			failOnFlag(),
			values.ThresholdFlag(flagWarn, "warn this long `BEFORE` the end of what people renew, or at this share of its life: 60d, 25% (default: 30d or a third, what comes later)"),
			values.ThresholdFlag(flagCrit, "the same for critical findings, `BEFORE` the end (default: 7d or a sixth, what comes later)"),
			&cli.GenericFlag{Name: flagMaxLifetime, Value: &values.Duration{}, DefaultText: "any", Usage: "warn about leaves that live longer than this `TIME`, such as 90d"},
			&cli.StringSliceFlag{Name: flagCRL, Usage: "revocation list `FILE`, PEM or DER, to judge certificates by; may be repeated"},
			&cli.StringFlag{Name: flagBaseline, Usage: "leave out the findings that this `FILE` accepts"},
			&cli.StringFlag{Name: flagWriteBaseline, Usage: "write a baseline that accepts all findings of this run to `FILE`"},
			&cli.StringSliceFlag{Name: flagOnly, Usage: "run only the check `ID`; may be repeated"},
			&cli.StringSliceFlag{Name: flagDisable, Usage: "leave out the check `ID`; may be repeated"},
			&cli.BoolFlag{Name: flagExplain, Usage: "list what was left out on purpose, and why: files of other kinds, links to directories, what is excluded"},
			&cli.BoolFlag{Name: "checks", Usage: "list the checks, with what to do about each, and end"},
		),
		CustomHelpTemplate: help.Head + statusesAudit + "\n",
		Subcommands:        []*cli.Command{auditDiffCommand(u)},
		Action:             u.Action(runAudit),
	}
}

// failOnFlag returns --fail-on, which audit diff has as well and in the same meaning.
func failOnFlag() cli.Flag {
	return &cli.StringFlag{Name: flagFailOn, Value: audit.Crit.String(), Usage: "exit with status 3 on findings from this `SEVERITY` up: info, warn or crit"}
}

// judgeFlags returns the flags of audit and inspect: how to judge, and how to reach what is
// judged. formats are those of the command, the default first.
func judgeFlags(formats ...string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: credentials.CACert, EnvVars: []string{"TLS__CA_CERT_FILE"}, Usage: "trust bundle `FILE`, PEM, that the chains must lead to (default: the ca.crt of a --cert DIR)"},
		&cli.StringFlag{Name: flagAt, Usage: "judge at another `TIME` than now: 2027-01-31T12:00:00Z, or +14d from now"},
		&cli.StringSliceFlag{Name: flags.PasswordFile, Usage: "`FILE` with a password to try on PKCS #12 stores, after the empty one; may be repeated"},
		&cli.StringFlag{Name: flagServerName, Usage: "ask servers for `NAME`, and want it in their certificates, instead of the host in their address"},
		&cli.StringFlag{Name: credentials.Cert, Usage: "client certificate for servers that ask for one and pass --ca-cert: a `DIR` that issue wrote, or a file with --key"},
		&cli.StringFlag{Name: credentials.Key, Usage: "`FILE` with the key of --cert, PEM"},
		values.DurationFlag("timeout", 5*time.Second, "wait this long for each server"),
		output.Flag(formats...),
	}
}

// runAudit audits files, servers and the record, and writes the report. It reads the whole
// command line, and the files that flags name, before it looks at anything, because an audit
// can run for minutes. The package audit decides what a finding is, the packages below it
// how a place is read.
//
// What cannot be read or reached is a row of the report and not an error, so that one place
// never hides the others. The status is 3 for findings from --fail-on up, else 1 if
// something could not be checked. Without findings it is 2 for checks of chains that had no
// trust bundle for any chain: such a report looks as if all were well.
//
// An interrupted audit completes its report with what was found until then, and the report
// says that it is not complete. Nothing is changed but the file of --write-baseline.
func runAudit(u *ui.UI, c *cli.Context) error {
	if c.Bool("checks") {
		return listChecks(u, c)
	}
	if c.Args().Len() == 0 && c.String(flagRecord) == "" {
		return ui.UsageErrorf("nothing to audit: want a file, a directory, HOST:PORT or --record")
	}
	format := c.String(output.Name)
	if !slices.Contains(auditFormats(), format) {
		return ui.UsageErrorf("--%s %q: want one of %s", output.Name, printable.Clean(format), strings.Join(auditFormats(), ", "))
	}
	least, err := failOn(c)
	if err != nil {
		return err
	}
	summary, err := auditArguments(u, c, format)
	if err != nil {
		return err
	}
	status := exitStatusFor(summary, least)
	if !errors.Is(status, ui.ExitStatus(ui.ExitFindings)) && summary.Judged == 0 && summary.Unjudged > 0 && ofChains(c.StringSlice(flagOnly)) {
		return ui.WithHint(ui.UsageErrorf("--%s wants chains judged, and there is no trust bundle for any", flagOnly), "--ca-cert or --record names one, or a ca.crt lies beside the files")
	}
	return status
}

// ofChains reports whether --only was given and names nothing but checks that need a trust
// bundle.
func ofChains(only []string) bool {
	needBundle := []string{"chain-incomplete", "untrusted", "chain-invalid", "chain-ends"}
	return len(only) > 0 && !slices.ContainsFunc(only, func(id string) bool { return !slices.Contains(needBundle, id) })
}

// listChecks prints the table of checks: id, severity, what to do, and the section that the
// check rests on. Baselines, --only and --disable use the ids.
func listChecks(u *ui.UI, c *cli.Context) error {
	switch format := c.String(output.Name); format {
	case output.JSON:
		return u.JSON(map[string]any{"schema_version": 1, "checks": audit.Checks()})
	case output.Table:
	default:
		return ui.UsageErrorf("--%s %q: want one of %s, %s for --checks", output.Name, printable.Clean(format), output.Table, output.JSON)
	}
	for _, c := range audit.Checks() {
		if err := u.Outf("%-16s %-4s  %s (%s)", c.Check, c.Severity, c.Remedy, c.Cites); err != nil {
			return err
		}
	}
	return nil
}

// auditChoices returns, by the name of a flag of audit, the values that the flag takes. It is
// for completion, and for checkIDs.
func auditChoices() map[string][]string {
	var names, ids []string
	for _, s := range severities {
		names = append(names, s.String())
	}
	for _, f := range audit.Checks() {
		ids = append(ids, f.Check)
	}
	return map[string][]string{flagFailOn: names, flagOnly: ids, flagDisable: ids}
}

// checkIDs returns the ids that --only or --disable names. An unknown id is an error of the
// command line: an audit that runs nothing would be green.
func checkIDs(c *cli.Context, flag string) ([]string, error) {
	known := auditChoices()[flag]
	ids := c.StringSlice(flag)
	for _, id := range ids {
		if !slices.Contains(known, id) {
			return nil, ui.WithHint(ui.UsageErrorf("--%s %q: there is no such check", flag, printable.Clean(id)), "known ids: %s", strings.Join(known, ", "))
		}
	}
	return ids, nil
}

// failOn returns the severity of --fail-on, from which on findings make the exit status 3.
func failOn(c *cli.Context) (audit.Severity, error) {
	for _, s := range severities {
		if c.String(flagFailOn) == s.String() {
			return s, nil
		}
	}
	return 0, ui.UsageErrorf("--%s %q: want info, warn or crit", flagFailOn, printable.Clean(c.String(flagFailOn)))
}

// exitStatusFor returns the exit status of a summary as an error, or nil for 0. Findings of
// at least the severity least are 3; else places that could not be checked are 1. Findings
// come first because they are certain.
func exitStatusFor(s *audit.Summary, least audit.Severity) error {
	findings, unchecked := s.Count(least)
	switch {
	case findings > 0:
		return ui.ExitStatus(ui.ExitFindings)
	case unchecked > 0:
		return ui.ExitStatus(ui.ExitFailure)
	}
	return nil
}

// auditArguments audits the arguments of audit or inspect, and the record if --record names
// one, and writes the report in a format that the caller has checked. The record comes last
// among the sources, because only what was found before can be compared with it.
func auditArguments(u *ui.UI, c *cli.Context, format string) (*audit.Summary, error) {
	cfg, err := auditConfig(u, c)
	if err != nil {
		return nil, err
	}
	if c.String(flagRecord) != "" {
		source, release, err := recordSource(c, cfg.Now())
		if err != nil {
			return nil, err
		}
		defer release()
		cfg.Sources = append(cfg.Sources, source)
	}
	width, _ := u.Terminal(u.Out)
	if cfg.Report, err = report.New(format, u.Out, report.Terminal{Width: width, Colour: u.Colour(u.Out), Program: "artstore-pki " + help.Version()}); err != nil {
		return nil, err
	}
	if width, ok := u.Terminal(u.Err); ok && quietUntilEnd(u, format) {
		p := newProgress(cfg.Report, u.Err, width)
		defer p.stop()
		cfg.Report = p
	}
	return runWithBaseline(u, c, cfg)
}

// quietUntilEnd reports whether a progress line can be shown on stderr. It cannot where rows
// are printed as they come on the same terminal: they would end up in the line. Tables and
// texts print at the end.
func quietUntilEnd(u *ui.UI, format string) bool {
	_, shared := u.Terminal(u.Out)
	return !shared || format == output.Table || format == output.Wide || format == output.Text
}

// parseAt returns the function that tells the moment to judge at, from the text of --at: a
// moment in the form of RFC 3339, or + and a length of time. Without a text it is time.Now.
// A length of time moves with the clock during the audit, a moment does not.
func parseAt(text string) (func() time.Time, error) {
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
		return nil, ui.UsageErrorf("--%s %q: want a time such as 2027-01-31T12:00:00Z, or +36h, +14d", flagAt, printable.Clean(text))
	}
	return func() time.Time { return at }, nil
}

// flagServerName has the name that openssl s_client has for it.
const flagServerName = "servername"
