package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
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
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/printable"
)

// What audit reads before it looks at anything: a mistake in one of these ends it,
// because a report that judged by something else would look all right.

const (
	maxList     = 64 << 20 // a revocation list: a million entries are 40 MB
	maxBaseline = 8 << 20
)

// auditConfig makes the configuration of an audit from flags and arguments.
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
		Fast: c.Bool(flagFast) || c.Command.Name == cmdInspect, // which explains what one client sees
	}
	if targets.Names, err = expandTargets(c.Args().Slice()); err != nil {
		return cfg, err
	}
	cfg.About = aboutAudit(c)
	err = readCredentials(u, c, &targets)
	targets.Names = append(targets.Names, unread...) // which reads of a list what can be read
	cfg.Sources = []audit.Source{targets}
	return cfg, err
}

// aboutAudit is for the reader of the report. Files with passwords are names in it.
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

// wantPatterns refuses patterns that could match nothing, because of how they are written.
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

// runWithBaseline runs the audit, and writes the next baseline if one is wanted. What the
// present one accepts for nothing is said on stderr: some formats have no place for it.
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

// readBundle reads the trust bundle; none means that each chain is judged by what lies
// beside it.
func readBundle(path string) ([]*x509.Certificate, error) {
	if path == "" {
		return nil, nil
	}
	bundle, err := credentials.ReadChain(path)
	return bundle, ui.WithHint(err, "--ca-cert wants the roots of the authority in PEM, such as the ca.crt that issue writes")
}

// readBaseline reads accepted findings. One line that cannot be read is an error: left
// out, it would accept nothing, and nobody would see why.
func readBaseline(path string) (*audit.Baseline, error) {
	if path == "" {
		return nil, nil
	}
	data, err := readUpTo(path, maxBaseline)
	if err != nil {
		return nil, fmt.Errorf("reading the baseline: %w", err)
	}
	b, err := audit.ParseBaseline(string(data))
	if err != nil {
		return nil, ui.WithHint(fmt.Errorf("%s: %w", path, err), "--%s makes one", flagWriteBaseline)
	}
	return b, nil
}

// readLists reads all lists of a file into lists, by the path, and the number of the block
// from the second on. It counts those that cannot be parsed: the others judge all the same.
func readLists(path string, lists map[string]*x509.RevocationList) (unread int, err error) {
	data, err := readUpTo(path, maxList)
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
	case len(data) == 0 || data[0] != 0x30: // no SEQUENCE: a wrong name on the command line
		return 0, fmt.Errorf("reading a revocation list in %s: there is none in it", path)
	default:
		one(data, 1)
	}
	return unread, nil
}

// readUpTo reads a file that is expected to be no larger than limit bytes.
func readUpTo(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is larger than %d MiB", path, limit>>20)
	}
	return data, err
}

// expandTargets replaces each @FILE among the arguments by the targets in that file.
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

// targetList takes one target from each line: blanks around it, empty lines and
// those that begin with # do not count. A list names no further lists.
func targetList(text string) (out []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	return out
}

// readCredentials reads what stores and servers are opened with: passwords, and a client certificate.
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
