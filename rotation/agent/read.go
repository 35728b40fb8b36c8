package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/internal/strictyaml"
	"github.com/artstore/artstore-pki/rotation/agent/internal/formats"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

const (
	maxConfig     = 1 << 20 // bytes
	maxIdentities = 1000
)

// The form of the file. Its keys are those of docs/agent.md.
type (
	fileConfig struct {
		CAURL           string         `yaml:"ca_url"`
		RootFingerprint string         `yaml:"root_fingerprint"`
		AuthorityName   string         `yaml:"authority_name"`
		Socket          string         `yaml:"socket"`
		StatusFile      string         `yaml:"status_file"`
		Metrics         string         `yaml:"metrics"`
		Identities      []fileIdentity `yaml:"identities"`
		WorkloadAPI     *fileWorkload  `yaml:"workload_api"`
	}
	fileIdentity struct {
		Name            string       `yaml:"name"`
		Service         string       `yaml:"service"`
		Names           []string     `yaml:"names"`
		Dir             string       `yaml:"dir"`
		CAURL           string       `yaml:"ca_url"`
		RootFingerprint string       `yaml:"root_fingerprint"`
		AuthorityName   string       `yaml:"authority_name"`
		TokenFile       string       `yaml:"token_file"`
		KeyType         string       `yaml:"key_type"`
		Owner           string       `yaml:"owner"`
		Group           string       `yaml:"group"`
		Mode            string       `yaml:"mode"`
		Formats         []fileFormat `yaml:"formats"`
		Hook            *fileHook    `yaml:"hook"`
		Serves          []fileServes `yaml:"serves"`
	}
	fileFormat struct {
		Kind         string `yaml:"kind"`
		File         string `yaml:"file"`
		PasswordFile string `yaml:"password_file"`
	}
	fileHook struct {
		Command []string             `yaml:"command"`
		Reload  string               `yaml:"reload"`
		Unit    string               `yaml:"unit"`
		PIDFile string               `yaml:"pid_file"`
		Signal  string               `yaml:"signal"`
		URL     string               `yaml:"url"`
		Timeout *strictyaml.Duration `yaml:"timeout"`
		Settle  *strictyaml.Duration `yaml:"settle"`
	}
	fileServes struct {
		Address    string `yaml:"address"`
		ServerName string `yaml:"server_name"`
	}
)

// ReadConfig reads a configuration file. checkAddress returns an error for a text that is no
// address for Identity.Serves. The error has a line for each fault, with the line in the file.
func ReadConfig(path string, checkAddress func(string) error) (Config, error) {
	data, err := readBounded(path)
	if err != nil {
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	c, err := parseConfig(data, checkAddress)
	if err != nil {
		var lines []error
		for line := range strings.Lines(err.Error()) {
			lines = append(lines, fmt.Errorf("reading %s: %s", path, strings.TrimRight(line, "\n")))
		}
		return Config{}, errors.Join(lines...)
	}
	return c, nil
}

// readBounded returns the bytes of a file, or an error if it is longer than a configuration is.
func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only: nothing to lose
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(data) > maxConfig {
		err = fmt.Errorf("%s: longer than %d bytes", path, maxConfig)
	}
	return data, err
}

// parseConfig parses a file. Its error has a line of text for each fault.
func parseConfig(data []byte, checkAddress func(string) error) (Config, error) {
	var file fileConfig
	if err := strictyaml.Decode(data, &file); err != nil {
		return Config{}, located(data, err)
	}
	p := &parser{data: data, checkAddress: checkAddress}
	c := p.config(file)
	return c, errors.Join(p.faults...)
}

// located adds the line to an error of the library that has none, such as one of a control character:
// the last line of the shortest beginning of the file that has the same fault.
func located(data []byte, fault error) error {
	text := fault.Error()
	if strings.HasPrefix(text, "line ") || text == emptyFile {
		return fault
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	n := sort.Search(len(lines)-1, func(n int) bool {
		err := strictyaml.Decode(bytes.Join(lines[:n+1], nil), new(fileConfig))
		return err != nil && err.Error() == text
	})
	return fmt.Errorf("line %d: %w", n+1, fault)
}

const emptyFile = "the file is empty" // as strictyaml has it

// parser collects the faults of a file.
type parser struct {
	data         []byte
	checkAddress func(string) error
	faults       []error
}

// fault adds a fault of the value at a path.
func (p *parser) fault(at []any, format string, args ...any) {
	var name strings.Builder
	for _, step := range at {
		if key, ok := step.(string); ok {
			name.WriteString("." + key)
		} else {
			fmt.Fprintf(&name, "[%d]", step)
		}
	}
	text := printable.Line(fmt.Sprintf(format, args...), 400)
	p.faults = append(p.faults, fmt.Errorf("line %d: %s: %s", strictyaml.Line(p.data, at...), strings.TrimPrefix(name.String(), "."), text))
}

// config returns what a file means. Faults are collected, so that an author sees all of them.
func (p *parser) config(f fileConfig) Config {
	c := Config{Socket: f.Socket, StatusFile: f.StatusFile, Metrics: f.Metrics}
	for key, path := range map[string]string{"socket": f.Socket, "status_file": f.StatusFile} {
		if path != "" && !filepath.IsAbs(path) {
			p.fault([]any{key}, "want an absolute path, not %q", path)
		}
	}
	if f.Metrics != "" && !isLoopback(f.Metrics) {
		p.fault([]any{"metrics"}, "want HOST:PORT of loopback, such as 127.0.0.1:9110, not %q", f.Metrics)
	}
	if len(f.Identities) == 0 || len(f.Identities) > maxIdentities {
		p.fault([]any{"identities"}, "want 1 to %d identities, not %d", maxIdentities, len(f.Identities))
		return c
	}
	for i, id := range f.Identities {
		id.CAURL, id.RootFingerprint = or(id.CAURL, f.CAURL), or(id.RootFingerprint, f.RootFingerprint)
		id.AuthorityName = or(id.AuthorityName, f.AuthorityName)
		c.Identities = append(c.Identities, p.identity(id, i))
	}
	p.unique(c.Identities)
	if f.WorkloadAPI != nil {
		c.Workload = p.workloadAPI(*f.WorkloadAPI, c)
	}
	return c
}

// or returns a unless it is empty, else b.
func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// unique refuses two identities with one name or one directory.
func (p *parser) unique(all []Identity) {
	names, dirs := map[string]int{}, map[string]int{}
	for i, id := range all {
		if first, taken := names[id.Name]; taken {
			p.fault([]any{"identities", i, "name"}, "%q is the name of identities[%d] too", id.Name, first)
		}
		if first, taken := dirs[id.Dir]; taken && id.Dir != "" {
			p.fault([]any{"identities", i, "dir"}, "%s is the directory of identities[%d] too", id.Dir, first)
		}
		names[id.Name], dirs[id.Dir] = i, i
	}
}

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// identity returns one entry of the list. What needs the disk or the network is checked later.
func (p *parser) identity(f fileIdentity, i int) Identity {
	at := func(path ...any) []any { return append([]any{"identities", i}, path...) }
	id := Identity{
		Name: or(f.Name, filepath.Base(f.Dir)), Service: f.Service, Names: f.Names, Dir: filepath.Clean(f.Dir), TokenFile: f.TokenFile,
		URL: f.CAURL, RootFingerprint: f.RootFingerprint, AuthorityName: f.AuthorityName, KeyType: enroll.KeyType(f.KeyType),
	}
	if !filepath.IsAbs(f.Dir) || id.Dir == "/" {
		p.fault(at("dir"), "want an absolute path of a directory for this identity alone, not %q", f.Dir)
		id.Dir = ""
	}
	if !validName.MatchString(id.Name) {
		p.fault(at("name"), "want letters, digits, dots, dashes and underscores, at most 64, not %q", id.Name)
	}
	if f.TokenFile != "" && !filepath.IsAbs(f.TokenFile) {
		p.fault(at("token_file"), "want an absolute path, not %q", f.TokenFile)
	}
	if id.Dir != "" {
		if _, err := enroll.New(enroll.Config{URL: id.URL, RootFingerprint: id.RootFingerprint, AuthorityName: id.AuthorityName, Dir: id.Dir, KeyType: id.KeyType}); err != nil {
			p.fault(at(), "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
	id.Access = p.access(f, at)
	id.Formats = p.formats(f.Formats, at)
	id.Serves = p.serves(f.Serves, at)
	if f.Hook != nil {
		id.Hook = p.hook(*f.Hook, at)
	}
	return id
}

// access reads owner, group and mode. Whether the users exist is known only when files are written:
// they may be made after the agent has started.
func (p *parser) access(f fileIdentity, at func(...any) []any) Access {
	a := Access{Owner: f.Owner, Group: f.Group}
	if f.Mode == "" {
		return a
	}
	mode, err := strconv.ParseUint(f.Mode, 8, 16)
	if a.Mode = fs.FileMode(mode); err != nil || a.Mode&0o400 == 0 || a.Mode&^0o640 != 0 {
		p.fault(at("mode"), "want the octal mode of the key, 0400, 0440, 0600 or 0640 in quotes, not %q", f.Mode)
	}
	return a
}

// reserved are names that a format cannot have: they belong to enroll and to the agent.
var reserved = []string{"tls.crt", "tls.key", "ca.crt", "crl.pem", "crl.kept", "log.head", "log.head.old", "authority.json", "current", "hook.json"}

// formats refuses two formats with one file, and names of files that enroll has.
func (p *parser) formats(all []fileFormat, at func(...any) []any) (out []Format) {
	for i, f := range all {
		kind := formats.Kind(f.Kind)
		if !kind.Known() {
			p.fault(at("formats", i, "kind"), "want one of %v, not %q", formats.Kinds(), f.Kind)
			continue
		}
		format := Format{Kind: f.Kind, File: or(f.File, kind.DefaultFile()), PasswordFile: f.PasswordFile}
		switch {
		case !validName.MatchString(format.File) || slices.Contains(reserved, format.File) || strings.HasPrefix(format.File, "gen-"):
			p.fault(at("formats", i, "file"), "want a name without directories that no other file of an identity has, not %q", format.File)
		case slices.ContainsFunc(out, func(o Format) bool { return o.File == format.File }):
			p.fault(at("formats", i, "file"), "%s is the file of another format too", format.File)
		}
		if kind.NeedsPassword() != filepath.IsAbs(format.PasswordFile) {
			p.fault(at("formats", i, "password_file"), "want an absolute path for pkcs12, pkcs12-trust, jks and jks-trust, and for no other kind")
		}
		out = append(out, format)
	}
	return out
}

// serves checks the addresses by the function of the caller, which knows the schemes.
func (p *parser) serves(all []fileServes, at func(...any) []any) (out []Address) {
	for i, s := range all {
		if err := p.checkAddress(s.Address); err != nil {
			p.fault(at("serves", i, "address"), "%v", err)
		}
		out = append(out, Address(s))
	}
	return out
}

// hook refuses more than one way: it would not be clear whether one failure is that of all.
func (p *parser) hook(f fileHook, at func(...any) []any) *Hook {
	h := &Hook{
		Command: f.Command, Reload: f.Reload, Unit: f.Unit, PIDFile: f.PIDFile, Signal: f.Signal, URL: f.URL,
		Timeout: p.bounded(f.Timeout, DefaultHookTimeout, maxHookTimeout, at("hook", "timeout")),
		Settle:  p.bounded(f.Settle, DefaultSettle, maxSettle, at("hook", "settle")),
	}
	ways := 0
	for _, given := range []bool{f.Command != nil, f.Reload != "", f.Unit != "", f.PIDFile != "", f.URL != ""} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		p.fault(at("hook"), "want one of command, reload, unit, pid_file and url, not %d of them", ways)
		return h
	}
	if err := h.check(); err != nil {
		p.fault(at("hook"), "%v", err)
	}
	return h
}

// bounded returns a length of time, its default if it is absent.
func (p *parser) bounded(d *strictyaml.Duration, otherwise, most time.Duration, at []any) time.Duration {
	if d == nil {
		return otherwise
	}
	if v := time.Duration(*d); v > 0 && v <= most {
		return v
	}
	p.fault(at, "want more than 0 and at most %s", most)
	return otherwise
}

// check returns the fault of a hook of which one way is set.
func (h *Hook) check() error {
	byUnit := h.Unit != "" || h.PIDFile != ""
	if _, known := signals[h.Signal]; byUnit != (h.Signal != "") || byUnit && !known {
		return fmt.Errorf("unit and pid_file, and no other way, want a signal: HUP, INT, TERM, USR1, USR2 or QUIT, not %q", h.Signal)
	}
	switch {
	case h.Command != nil:
		return h.commandOf(h.Command).Check()
	case h.PIDFile != "" && !filepath.IsAbs(h.PIDFile):
		return fmt.Errorf("pid_file: want an absolute path, not %q", h.PIDFile)
	case h.Reload != "" && !validUnit.MatchString(h.Reload), h.Unit != "" && !validUnit.MatchString(h.Unit):
		return fmt.Errorf("want the name of a unit, such as nginx.service, not %q", or(h.Reload, h.Unit))
	case h.URL != "":
		return checkURL(h.URL)
	}
	return nil
}

var validUnit = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9:_.\\@-]{0,254}$`)

// checkURL refuses cleartext to another machine: whoever is on the way could keep the program from
// its new files and answer in its place.
func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil { // its text may have a password in it
		return errors.New("url: want https://HOST/PATH, or http of a loopback address, without user and password")
	}
	if u.Scheme == "https" || u.Scheme == "http" && isLoopback(net.JoinHostPort(u.Hostname(), "80")) {
		return nil
	}
	return fmt.Errorf("url: want https, or http of a loopback address, not %s://%s", u.Scheme, u.Host)
}

// isLoopback reports whether HOST:PORT is of this machine by its text: names are not looked up,
// except localhost, which means loopback everywhere (RFC 6761 §6.3).
func isLoopback(address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
