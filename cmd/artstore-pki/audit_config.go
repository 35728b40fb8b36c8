package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/source"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/credentials"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/internal/boundedfile"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/printable"
)

// This file has what audit reads before it looks at anything: flags, and the files that
// they name. A mistake in one of them ends the command, because a report that was judged by
// something else would look all right.

// Bounds of files that are read into memory, in bytes. A revocation list of a million
// entries has 40 MB.
const (
	maxList     = 64 << 20
	maxBaseline = 8 << 20
)

// auditConfig returns the configuration of audit or of inspect, from the command line and
// from the files that it names. The caller adds the record and the report. A flag that
// inspect does not have reads as its zero value, which the package audit takes for the
// default.
//
// A revocation list of which only a part can be parsed judges with that part, and is a
// target as well, so that the damage has a row in the report.
func auditConfig(u *ui.UI, c *cli.Context) (cfg audit.Config, err error) {
	warn, crit := values.ThresholdOf(c, flagWarn), values.ThresholdOf(c, flagCrit)
	cfg = audit.Config{
		WarnBefore: warn.Before, WarnShare: warn.Share, CritBefore: crit.Before, CritShare: crit.Share, MaxLifetime: values.DurationOf(c, flagMaxLifetime),
		Explain: c.Bool(flagExplain),
	}
	if cfg.Now, err = parseAt(c.String(flagAt)); err != nil {
		return cfg, err
	}
	if c.String(flagAt) != "" {
		cfg.Clock = time.Now
	}
	bundle, err := readBundle(credentials.FilesOf(c).Roots)
	if err != nil {
		return cfg, err
	}
	if cfg.Only, err = checkIDs(c, flagOnly); err != nil {
		return cfg, err
	}
	if cfg.Disable, err = checkIDs(c, flagDisable); err != nil {
		return cfg, err
	}
	if err := wantPatterns(c, flagInclude, flagExclude); err != nil {
		return cfg, err
	}
	if cfg.Baseline, err = readBaseline(c.String(flagBaseline)); err != nil {
		return cfg, err
	}
	cfg.Lists = map[string]*x509.RevocationList{}
	var unread []string
	for _, path := range c.StringSlice(flagCRL) {
		n, err := readLists(path, cfg.Lists)
		if err != nil {
			return cfg, ui.WithHint(err, "--%s wants a revocation list in PEM or DER, such as the one that an authority serves", flagCRL)
		}
		if n > 0 {
			unread = append(unread, path)
		}
	}
	targets := source.Targets{
		Stdin: u.In, Bundle: bundle, Timeout: values.DurationOf(c, "timeout"), Include: c.StringSlice(flagInclude), Exclude: c.StringSlice(flagExclude),
		ServerName: c.String(flagServerName), Documents: c.Command.Name == cmdInspect,
		Fast: c.Bool(flagFast) || c.Command.Name == cmdInspect, // inspect explains what one client sees
	}
	if targets.Names, err = expandTargets(c.Args().Slice()); err != nil {
		return cfg, err
	}
	cfg.About = aboutAudit(c)
	err = readCredentials(u, c, &targets)
	targets.Names = append(targets.Names, unread...)
	cfg.Sources = []audit.Source{targets}
	return cfg, err
}

// aboutAudit returns what the report says about its own making: the host, the command with
// all flags that were given, and the targets. Values from the environment are among the
// flags. No flag has a secret as its value: passwords are in it as names of files.
func aboutAudit(c *cli.Context) audit.About {
	host, _ := os.Hostname() // a host without a name is left out
	about := audit.About{Host: host, Record: c.String(flagRecord), Bundle: credentials.FilesOf(c).Roots, Command: []string{"artstore-pki", c.Command.Name}}
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		if !c.IsSet(name) {
			continue
		}
		var values []string
		switch f.(type) {
		case *cli.StringSliceFlag:
			values = c.StringSlice(name)
		case *cli.GenericFlag:
			values = []string{fmt.Sprint(c.Generic(name))}
		default:
			values = []string{fmt.Sprint(c.Value(name))}
		}
		for _, value := range values {
			about.Command = append(about.Command, fmt.Sprintf("--%s=%s", name, value))
		}
	}
	about.Targets = c.Args().Slice()
	about.Command = append(about.Command, about.Targets...)
	return about
}

// wantPatterns returns an error of the command line if a value of one of the flags is no
// pattern. Such a pattern matches nothing, and its files would be left out in silence.
func wantPatterns(c *cli.Context, flags ...string) error {
	for _, flag := range flags {
		for _, p := range c.StringSlice(flag) {
			if !doublestar.ValidatePattern(p) {
				return ui.UsageErrorf("--%s %q: this is no pattern: a [ or { stays open, or a \\ is last", flag, printable.Clean(p))
			}
		}
	}
	return nil
}

// runWithBaseline runs the audit and returns its summary. With --write-baseline it then
// writes the next baseline, in one step; an audit that was interrupted writes none. The
// lines of the present baseline that matched nothing are listed on stderr, because some
// formats have no place for them.
func runWithBaseline(u *ui.UI, c *cli.Context, cfg audit.Config) (*audit.Summary, error) {
	var next bytes.Buffer
	path := c.String(flagWriteBaseline)
	if path != "" {
		cfg.NewBaseline = &next
	}
	summary, err := audit.Run(c.Context, cfg)
	if err != nil {
		return nil, err
	}
	for _, line := range summary.Stale {
		u.Infof("note: %s accepts what was not found: %s", c.String(flagBaseline), line)
	}
	if path == "" {
		return summary, nil
	}
	if err := durable.WriteFile(path, next.Bytes(), durable.Public); err != nil {
		return nil, fmt.Errorf("writing the baseline: %w", err)
	}
	return summary, nil
}

// readBundle returns the trust bundle in a file, or nil without a path: each chain is then
// judged by the bundle that is found beside it.
func readBundle(path string) ([]*x509.Certificate, error) {
	if path == "" {
		return nil, nil
	}
	bundle, err := credentials.ReadChain(path)
	return bundle, ui.WithHint(err, "--ca-cert wants the roots of the authority in PEM, such as the ca.crt that issue writes")
}

// readBaseline returns the accepted findings in a file, or nil without a path. One line that
// cannot be read is an error: a line that is left out accepts nothing, and nobody would see
// why its finding is back.
func readBaseline(path string) (*audit.Baseline, error) {
	if path == "" {
		return nil, nil
	}
	data, err := boundedfile.Read(path, maxBaseline)
	if err != nil {
		return nil, fmt.Errorf("reading the baseline: %w", err)
	}
	b, err := audit.ParseBaseline(string(data))
	if err != nil {
		return nil, ui.WithHint(fmt.Errorf("%s: %w", path, err), "--%s makes one", flagWriteBaseline)
	}
	return b, nil
}

// readLists adds the revocation lists in a file to lists and returns how many could not be
// parsed; the others judge all the same. The key in lists is the path, with the number of
// the PEM block behind it from the second list on. The file is PEM, where other blocks are
// left out, or one list in DER (RFC 5280 §5.1). A file that is neither is an error, because
// the command line names a wrong one.
func readLists(path string, lists map[string]*x509.RevocationList) (unread int, err error) {
	data, err := boundedfile.Read(path, maxList)
	if err != nil {
		return 0, fmt.Errorf("reading a revocation list: %w", err)
	}
	one := func(der []byte, n int) {
		name := path
		if n > 1 {
			name = fmt.Sprintf("%s#%d", path, n)
		}
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			unread++
			return
		}
		lists[name] = list
	}
	n := 0
	for rest := data; ; {
		block, behind := pem.Decode(rest)
		if block == nil {
			break
		}
		if rest = behind; block.Type == "X509 CRL" {
			n++
			one(block.Bytes, n)
		}
	}
	switch {
	case n > 0:
	case len(data) == 0 || data[0] != 0x30: // DER of a list begins with a SEQUENCE
		return 0, fmt.Errorf("reading a revocation list in %s: there is none in it", path)
	default:
		one(data, 1)
	}
	return unread, nil
}

// expandTargets returns the arguments with each @FILE replaced by the targets in that file. A
// list that cannot be read or that is empty is an error: an audit of nothing would be green.
func expandTargets(args []string) (out []string, err error) {
	for _, a := range args {
		path, isList := strings.CutPrefix(a, "@")
		if !isList {
			out = append(out, a)
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, ui.WithHint(fmt.Errorf("reading a list of targets: %w", err), "@FILE names a list, one target a line; a path that begins with @ is ./@…")
		}
		list := targetList(string(data))
		if len(list) == 0 {
			return nil, ui.UsageErrorf("%s: there is no target in this list", a)
		}
		out = append(out, list...)
	}
	return out, nil
}

// targetList returns the targets in the text of a list, one from each line, without the blanks
// around it. Empty lines and lines that begin with # are left out. A line that begins with @
// is a path like any other: a list names no further lists.
func targetList(text string) (out []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	return out
}

// readCredentials reads into t what stores and servers are opened with: the passwords of
// --password-file, and the client certificate of --cert and --key, of which both or none are
// given. A key that does not fit its certificate is an error here and not at each server.
func readCredentials(u *ui.UI, c *cli.Context, t *source.Targets) error {
	for _, path := range c.StringSlice(flags.PasswordFile) {
		password, err := u.ReadSecret(path)
		if err != nil {
			return ui.WithHint(fmt.Errorf("reading a password: %w", err), "--%s names a file with one password; the empty one is tried without", flags.PasswordFile)
		}
		t.Passwords = append(t.Passwords, password)
	}
	id := credentials.FilesOf(c)
	switch {
	case id.Cert == "" && id.Key == "":
		return nil
	case id.Cert == "" || id.Key == "":
		return id.Incomplete(ui.UsageErrorf("--%s and --%s go together", credentials.Cert, credentials.Key))
	}
	pair, err := credentials.Certificate(id.Cert, id.Key)
	t.Certificates = append(t.Certificates, pair)
	return err
}
