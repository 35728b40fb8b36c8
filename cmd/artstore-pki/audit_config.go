package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/printable"
)

// What audit reads before it looks at anything: a mistake in one of these ends it,
// because a report that judged by something else would look all right.

const (
	maxList     = 64 << 20 // a revocation list: a million entries are 40 MB
	maxBaseline = 8 << 20
)

func (u *ui) auditConfig(c *cli.Context) (cfg audit.Config, err error) {
	warn, crit := thresholdOf(c, flagWarn), thresholdOf(c, flagCrit)
	cfg = audit.Config{
		WarnBefore: warn.before, WarnShare: warn.share, CritBefore: crit.before, CritShare: crit.share, MaxLifetime: spanOf(c, flagMaxLifetime),
	}
	if cfg.Now, err = judgedAt(c.String(flagAt)); err != nil {
		return cfg, err
	}
	bundle, err := readBundle(c.String("ca-cert"))
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
	for _, path := range c.StringSlice(flagCRL) {
		if cfg.Lists[path], err = readList(path); err != nil {
			return cfg, withHint(err, "--%s wants a revocation list in PEM or DER, such as the one that an authority serves", flagCRL)
		}
	}
	targets := audit.Targets{
		Stdin: u.in, Bundle: bundle, Timeout: spanOf(c, "timeout"), Include: c.StringSlice(flagInclude), Exclude: c.StringSlice(flagExclude),
		ServerName: c.String(flagServerName), Documents: c.Command.Name == cmdInspect,
	}
	if targets.Names, err = expandTargets(c.Args().Slice()); err != nil {
		return cfg, err
	}
	err = u.openWith(c, &targets)
	cfg.Sources = []audit.Source{targets}
	return cfg, err
}

// wantPatterns refuses patterns that could match nothing, because of how they are written.
func wantPatterns(c *cli.Context, flags ...string) error {
	for _, flag := range flags {
		for _, p := range c.StringSlice(flag) {
			if !doublestar.ValidatePattern(p) {
				return usagef("--%s %q: this is no pattern: a [ or { stays open, or a \\ is last", flag, printable.Clean(p))
			}
		}
	}
	return nil
}

// accept runs the audit, and writes the next baseline if one is wanted. What the
// present one accepts for nothing is said on stderr: some formats have no place for it.
func (u *ui) accept(c *cli.Context, cfg audit.Config) (*audit.Summary, error) {
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
		u.say("note: %s accepts what was not found: %s", c.String(flagBaseline), line)
	}
	if path == "" {
		return summary, nil
	}
	if err := durable.WriteFile(path, next.Bytes(), durable.Public); err != nil {
		return nil, fmt.Errorf("writing the baseline: %w", err)
	}
	return summary, nil
}

func readBundle(path string) ([]*x509.Certificate, error) {
	if path == "" {
		return nil, nil
	}
	bundle, err := readCertificates(path)
	return bundle, withHint(err, "--ca-cert wants the roots of the authority in PEM, such as the ca.crt that issue writes")
}

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
		return nil, withHint(fmt.Errorf("%s: %w", path, err), "--%s makes one", flagWriteBaseline)
	}
	return b, nil
}

func readList(path string) (*x509.RevocationList, error) {
	data, err := readUpTo(path, maxList)
	if err != nil {
		return nil, fmt.Errorf("reading a revocation list: %w", err)
	}
	if block, _ := pem.Decode(data); block != nil && block.Type == "X509 CRL" {
		data = block.Bytes
	}
	list, err := x509.ParseRevocationList(data)
	if err != nil {
		return nil, fmt.Errorf("reading a revocation list in %s: %w", path, err)
	}
	return list, nil
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
