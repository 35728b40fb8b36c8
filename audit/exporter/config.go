package exporter

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/source"
	"github.com/artstore/artstore-pki/internal/boundedfile"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/internal/strictyaml"
	"github.com/artstore/artstore-pki/secret"
)

// Bounds of files, in bytes. A revocation list of a million entries has 40 MB.
const (
	maxConfig   = 1 << 20
	maxBundle   = 8 << 20
	maxBaseline = 8 << 20
	maxList     = 64 << 20
)

// Bounds and defaults of numbers in the configuration.
const (
	leastPeriod      = time.Second
	defaultFiles     = time.Minute
	defaultServers   = 5 * time.Minute
	defaultRecord    = 5 * time.Minute
	defaultReread    = time.Hour
	defaultMaxSeries = 200_000
)

// Config is a configuration with the files that it names. [ReadConfig] makes it, and it is valid
// then.
type Config struct {
	// Record is a state directory or the URL of an authority, "" for none.
	Record string
	// Certificate is shown to servers, and to the authority of the record; nil for none.
	Certificate *tls.Certificate
	// Roots are the trust bundle; nil if each file is judged by the one beside it.
	Roots []*x509.Certificate

	path      string // of the configuration
	text      []byte
	targets   source.Targets
	audit     audit.Config // without what changes: sources, lists and report
	lists     []string     // files
	named     []string     // other files that it names, and that matter
	every     periods
	maxSeries int
}

// periods are how often things are looked at.
type periods struct{ files, servers, record, reread time.Duration }

// fileConfig is the file, as docs/exporter.md describes it.
type fileConfig struct {
	Targets     []string            `yaml:"targets"`
	Include     []string            `yaml:"include"`
	Exclude     []string            `yaml:"exclude"`
	TrustBundle string              `yaml:"trust_bundle"`
	ServerName  string              `yaml:"server_name"`
	Fast        bool                `yaml:"fast"`
	Timeout     strictyaml.Duration `yaml:"timeout"`
	Client      *struct {
		Cert string `yaml:"cert"`
		Key  string `yaml:"key"`
	} `yaml:"client"`
	PasswordFiles []string            `yaml:"password_files"`
	Record        string              `yaml:"record"`
	Lists         []string            `yaml:"lists"`
	Baseline      string              `yaml:"baseline"`
	Warn          threshold           `yaml:"warn"`
	Crit          threshold           `yaml:"crit"`
	MaxLifetime   strictyaml.Duration `yaml:"max_lifetime"`
	Only          []string            `yaml:"only"`
	Disable       []string            `yaml:"disable"`
	Every         struct {
		Files   strictyaml.Duration `yaml:"files"`
		Servers strictyaml.Duration `yaml:"servers"`
		Record  strictyaml.Duration `yaml:"record"`
		Reread  strictyaml.Duration `yaml:"reread"`
	} `yaml:"every"`
	MaxSeries int `yaml:"max_series"`
}

// threshold is as in audit.Config: before the end, or a share of the life.
type threshold struct {
	Before strictyaml.Duration `yaml:"before"`
	Share  float64             `yaml:"share"`
}

// ReadConfig reads a configuration file and the files that it names. The error has a line for each
// fault, with the line in the file.
func ReadConfig(path string) (*Config, error) {
	data, err := boundedfile.Read(path, maxConfig)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return parse(path, data)
}

// parse is ReadConfig for a text. It reads the other files anew.
func parse(path string, data []byte) (*Config, error) {
	var file fileConfig
	err := strictyaml.Decode(data, &file)
	c := &Config{path: path, text: data}
	if err == nil {
		p := &parser{data: data}
		p.fill(c, &file)
		err = errors.Join(p.faults...)
	}
	if err == nil {
		return c, nil
	}
	var lines []error
	for line := range strings.Lines(err.Error()) {
		lines = append(lines, fmt.Errorf("reading %s: %s", path, printable.Line(line, 600)))
	}
	return nil, errors.Join(lines...)
}

// parser collects the faults of a file.
type parser struct {
	data   []byte
	faults []error
}

// fault adds a fault of a value.
func (p *parser) fault(err error, at ...any) {
	p.faults = append(p.faults, fmt.Errorf("line %d: %v: %s", strictyaml.Line(p.data, at...), at[0], printable.Line(err.Error(), 400)))
}

// period returns a length of time, or its default if it is 0.
func (p *parser) period(d strictyaml.Duration, usual time.Duration, at ...any) time.Duration {
	switch given := time.Duration(d); {
	case given == 0:
		return usual
	case given < leastPeriod:
		p.fault(fmt.Errorf("want at least %s", leastPeriod), at...)
		return usual
	default:
		return given
	}
}

// fill turns the file into values.
func (p *parser) fill(c *Config, f *fileConfig) {
	if len(f.Targets) == 0 && f.Record == "" {
		p.fault(errors.New("there is nothing to audit: want targets, or a record"), "targets")
	}
	for i, name := range f.Targets {
		// Standard input can be read once only, and a list of targets is the configuration itself.
		if name == "" || name == "-" || strings.HasPrefix(name, "@") {
			p.fault(fmt.Errorf("%q: want a path, a pattern of paths, HOST:PORT or a URL", name), "targets", i)
		}
	}
	for _, list := range []struct {
		key      string
		patterns []string
	}{{"include", f.Include}, {"exclude", f.Exclude}} {
		for i, pattern := range list.patterns {
			if !doublestar.ValidatePattern(pattern) {
				p.fault(fmt.Errorf("%q is no pattern", pattern), list.key, i)
			}
		}
	}
	c.targets = source.Targets{
		Names: f.Targets, Include: f.Include, Exclude: f.Exclude, ServerName: f.ServerName, Fast: f.Fast, Timeout: p.period(f.Timeout, 0, "timeout"),
	}
	c.every = periods{
		p.period(f.Every.Files, defaultFiles, "every", "files"), p.period(f.Every.Servers, defaultServers, "every", "servers"),
		p.period(f.Every.Record, defaultRecord, "every", "record"), p.period(f.Every.Reread, defaultReread, "every", "reread"),
	}
	if c.maxSeries = f.MaxSeries; c.maxSeries == 0 {
		c.maxSeries = defaultMaxSeries
	} else if c.maxSeries < 0 {
		p.fault(errors.New("want a number above 0"), "max_series")
	}
	c.Record, c.lists = f.Record, f.Lists
	p.judge(c, f)
	p.files(c, f)
}

// judge fills in how certificates are judged.
func (p *parser) judge(c *Config, f *fileConfig) {
	known := map[string]bool{}
	for _, check := range audit.Checks() {
		known[check.Check] = true
	}
	for _, list := range []struct {
		key string
		ids []string
	}{{"only", f.Only}, {"disable", f.Disable}} {
		for i, id := range list.ids {
			if !known[id] {
				p.fault(fmt.Errorf("there is no check %q", id), list.key, i)
			}
		}
	}
	for key, t := range map[string]threshold{"warn": f.Warn, "crit": f.Crit} {
		if t.Share < 0 || t.Share > 1 || t.Before < 0 {
			p.fault(errors.New("want a length of time, and a share between 0 and 1"), key)
		}
	}
	c.audit = audit.Config{
		WarnBefore: time.Duration(f.Warn.Before), WarnShare: f.Warn.Share, CritBefore: time.Duration(f.Crit.Before), CritShare: f.Crit.Share,
		MaxLifetime: time.Duration(f.MaxLifetime), Only: f.Only, Disable: f.Disable,
	}
	// The page shows this to people who do not know the configuration.
	host, _ := os.Hostname() // a host without a name is left out
	c.audit.About = audit.About{
		Host: host, Command: []string{"artstore-pki", "exporter", "--config=" + c.path}, Targets: f.Targets, Record: f.Record, Bundle: f.TrustBundle,
	}
}

// files reads the files that the configuration names.
func (p *parser) files(c *Config, f *fileConfig) {
	if f.TrustBundle != "" {
		roots, err := readCertificates(f.TrustBundle)
		if err != nil {
			p.fault(err, "trust_bundle")
		}
		c.Roots, c.targets.Bundle, c.named = roots, roots, append(c.named, f.TrustBundle)
	}
	if f.Client != nil {
		pair, err := readPair(f.Client.Cert, f.Client.Key)
		if err != nil {
			p.fault(err, "client")
		} else {
			c.Certificate, c.targets.Certificates = pair, []tls.Certificate{*pair}
		}
		c.named = append(c.named, f.Client.Cert, f.Client.Key)
	}
	for i, path := range f.PasswordFiles {
		password, err := secret.ReadFile(path)
		if err != nil {
			p.fault(err, "password_files", i)
		}
		c.targets.Passwords, c.named = append(c.targets.Passwords, password), append(c.named, path)
	}
	if f.Baseline != "" {
		data, err := boundedfile.Read(f.Baseline, maxBaseline)
		if err == nil {
			c.audit.Baseline, err = audit.ParseBaseline(string(data))
		}
		if err != nil {
			p.fault(err, "baseline")
		}
		c.named = append(c.named, f.Baseline)
	}
	// They are read again by the session: here it is only said whether they can be.
	if _, err := c.readLists(); err != nil {
		p.fault(err, "lists")
	}
}

// readLists reads the revocation lists by which all certificates are judged. Their keys are the
// names of the files.
func (c *Config) readLists() (map[string]*x509.RevocationList, error) {
	out := map[string]*x509.RevocationList{}
	for _, path := range c.lists {
		data, err := boundedfile.Read(path, maxList)
		if err != nil {
			return nil, fmt.Errorf("reading a revocation list: %w", err)
		}
		// Authorities serve DER, and OpenSSL writes PEM.
		if slices.Equal(data[:min(1, len(data))], []byte{0x30}) { // DER begins with a SEQUENCE
			list, err := x509.ParseRevocationList(data)
			if err != nil {
				return nil, fmt.Errorf("reading a revocation list in %s: %w", path, err)
			}
			out[path] = list
			continue
		}
		lists, _, err := pemfile.RevocationLists(data)
		if err != nil {
			return nil, fmt.Errorf("reading a revocation list in %s: %w", path, err)
		}
		for i, list := range lists {
			name := path
			if i > 0 {
				name = fmt.Sprintf("%s#%d", path, i+1)
			}
			out[name] = list
		}
	}
	return out, nil
}

// readCertificates reads certificates in PEM.
func readCertificates(path string) ([]*x509.Certificate, error) {
	data, err := boundedfile.Read(path, maxBundle)
	if err != nil {
		return nil, fmt.Errorf("reading certificates: %w", err)
	}
	list, err := pemfile.Certificates(data)
	if err != nil {
		return nil, fmt.Errorf("reading certificates in %s: %w", path, err)
	}
	return list, nil
}

// readPair reads a client certificate and its key.
func readPair(certFile, keyFile string) (*tls.Certificate, error) {
	if certFile == "" || keyFile == "" {
		return nil, errors.New("want cert and key")
	}
	chain, err := readCertificates(certFile)
	if err != nil {
		return nil, err
	}
	data, err := boundedfile.Read(keyFile, maxBundle)
	if err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	key, err := pemfile.PrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("reading the key in %s: %w", keyFile, err)
	}
	if !certs.Fits(chain[0], key) {
		return nil, fmt.Errorf("the key in %s does not fit the certificate in %s", keyFile, certFile)
	}
	pair := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return pair, nil
}

// signatures returns what changes when one of the named files does, and when a list does.
func (c *Config) signatures() [2]string {
	return [2]string{signaturesOf(c.named), signaturesOf(c.lists)}
}

// signaturesOf returns a text that differs once one of the files was replaced. A file that is away for
// a moment counts as a change, because its successor does so anyway.
func signaturesOf(paths []string) string {
	var b strings.Builder
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil {
			_, _ = fmt.Fprintf(&b, "%s %d %s\n", path, info.Size(), info.ModTime()) // never fails
		}
	}
	return b.String()
}
