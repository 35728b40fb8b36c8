package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// devCertsRun runs the command and returns its status and what it printed.
func devCertsRun(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, talk strings.Builder
	code = run(t.Context(), stdio{in: strings.NewReader(""), out: &out, err: &talk, getenv: func(string) string { return "" }},
		append([]string{"artstore-pki", "dev", "certs"}, args...))
	return code, out.String(), talk.String()
}

// devCertsDir is a directory that the command filled; its parents were not there.
func devCertsDir(t *testing.T, args ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "not", "there", "certs")
	if code, out, talk := devCertsRun(t, append(args, dir)...); code != exitOK {
		t.Fatalf("exit status %d\n%s%s", code, out, talk)
	}
	return dir
}

func devPair(t *testing.T, dir string) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func devPool(t *testing.T, path string) *x509.CertPool {
	t.Helper()
	roots, err := readCertificates(path)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	return pool
}

// handshake is TLS 1.3 with certificates on both sides, and one byte each way:
// only the answer tells that the server has taken the client's certificate.
func handshake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	ln, err := net.Listen("tcp", loopback) // not net.Pipe: there, two alerts wait for each other
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		conn, err := ln.Accept()
		if err == nil {
			b := tls.Server(conn, server)
			_, err = io.CopyN(b, b, 1)
			err = errors.Join(err, b.Close())
		}
		served <- err
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a := tls.Client(conn, client)
	if _, err = a.Write([]byte{1}); err == nil {
		_, err = io.ReadFull(a, make([]byte, 1))
	}
	err = errors.Join(err, conn.Close(), ln.Close(), <-served)
	return err
}

// services of the issue, with what code and what containers call them.
var devNames = map[string][]string{
	"admin-module":       {"admin-module", "artstore_admin_module"},
	"storage-element":    {"storage-element", "artstore_storage_element"},
	"storage-element-01": {"storage-element-01", "artstore_storage_element_01"},
	"storage-element-02": {"storage-element-02", "artstore_storage_element_02"},
	"storage-element-03": {"storage-element-03", "artstore_storage_element_03"},
	"ingester-module":    {"ingester-module", "artstore_ingester_module"},
	"query-module":       {"query-module", "artstore_query_module"},
	"localhost":          nil,
}

// TestDevCertsHandshake uses every certificate as server and as client, under
// every name that it should have.
func TestDevCertsHandshake(t *testing.T) {
	dir := devCertsDir(t, "--expired", "--not-yet-valid")
	pool := devPool(t, filepath.Join(dir, "ca.crt"))
	client := func(service, name string) *tls.Config {
		return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: name, Certificates: []tls.Certificate{devPair(t, filepath.Join(dir, service))}}
	}
	server := func(service string) *tls.Config {
		return &tls.Config{MinVersion: tls.VersionTLS13, ClientCAs: devPool(t, filepath.Join(dir, service, "ca.crt")),
			ClientAuth: tls.RequireAndVerifyClientCert, Certificates: []tls.Certificate{devPair(t, filepath.Join(dir, service))}}
	}
	for service, names := range devNames {
		names = append(slices.Clone(names), "localhost", "127.0.0.1", "::1")
		for _, name := range names {
			if err := handshake(t, server(service), client(service, name)); err != nil {
				t.Errorf("%s as %s: %v", service, name, err)
			}
		}
		if err := handshake(t, server("admin-module"), client(service, "artstore_admin_module")); err != nil {
			t.Errorf("%s as client of the Admin Module: %v", service, err)
		}
		if got := leafNamesOf(t, filepath.Join(dir, service)); !equalSets(got, names) {
			t.Errorf("%s: names %q, want %q", service, got, names)
		}
	}

	for _, c := range []struct {
		what           string
		server, client *tls.Config
		want           string
	}{
		{"a name of another", server("query-module"), client("query-module", "admin-module"), "certificate is valid for"},
		{"no client certificate", server("query-module"), &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: "localhost"}, "certificate required"},
		{"an expired client", server("query-module"), client("fixtures/expired", "localhost"), "expired"},
		{"an expired server", server("fixtures/expired"), client("query-module", "localhost"), "is after"},
		{"a client not valid yet", server("query-module"), client("fixtures/not-yet-valid", "localhost"), "expired"}, // the alert for both: RFC 8446 §6.2
		{"a server not valid yet", server("fixtures/not-yet-valid"), client("query-module", "localhost"), "is before"},
	} {
		if err := handshake(t, c.server, c.client); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
}

func leafNamesOf(t *testing.T, dir string) []string {
	t.Helper()
	leaf := devPair(t, dir).Leaf
	names := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

func equalSets(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// TestDevCertsOldFaults has a case for everything that kept the certificates of
// ArtStore's own generate-certs.sh from being of use. Its list of cipher suites
// has no counterpart: those of TLS 1.3 cannot be chosen, and nothing here tries.
func TestDevCertsOldFaults(t *testing.T) {
	dir := devCertsDir(t) // "directory does not exist": three of its parents did not, either
	for service := range devNames {
		pair := devPair(t, filepath.Join(dir, service))
		leaf := pair.Leaf
		for _, name := range leaf.DNSNames {
			if strings.ContainsAny(name, "\\\n =") {
				t.Errorf("%s: line breaks and openssl syntax in a name: %q", service, name)
			}
		}
		if len(leaf.IPAddresses) != 2 {
			t.Errorf("%s: addresses among the DNS names: %v, %v", service, leaf.IPAddresses, leaf.DNSNames)
		}
		for _, name := range devNames[service] {
			if err := leaf.VerifyHostname(name); err != nil {
				t.Errorf("hyphen or underscore: %v", err)
			}
		}
		if want := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}; !slices.Equal(leaf.ExtKeyUsage, want) {
			t.Errorf("%s: for servers only, or for more than both: %v", service, leaf.ExtKeyUsage)
		}
		if chain := pair.Certificate; len(chain) != 2 {
			t.Errorf("%s: signed by the root itself, or the intermediate is not sent: chain of %d", service, len(chain))
		}
	}
	if roots, err := readCertificates(filepath.Join(dir, "ca.crt")); err != nil || len(roots) != 1 || !roots[0].IsCA {
		t.Errorf("no file to trust by: %d certificates, %v", len(roots), err)
	}
}

// TestDevCertsHeals takes away or damages one piece at a time, as a crash, a
// stray command or another program may, and lets the next run find it.
func TestDevCertsHeals(t *testing.T) {
	dir := devCertsDir(t, "--expired")
	file := func(name string) string { return filepath.Join(dir, name) }
	do := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name  string
		harm  func()
		state string // what the line of localhost begins with
		why   string
	}{
		{"nothing", func() {}, "kept", "-"},
		{"the whole directory", func() { do(os.RemoveAll(file("localhost"))) }, "made", "-"},
		{"a link", func() { do(os.Remove(file("localhost/tls.key"))) }, "replaced", "tls.key missing"},
		{"the current generation", func() { do(os.Remove(file("localhost/current"))) }, "made", "-"},
		{"a file of it", func() { do(os.Remove(filepath.Join(resolve(t, file("localhost/current")), "ca.crt"))) }, "replaced", "ca.crt missing"},
		{"half a file", func() { do(os.Truncate(file("localhost/tls.crt"), 700)) }, "replaced", "not readable: tls.crt: "},
		{"the key of another", func() { copyFile(t, file("query-module/tls.key"), resolve(t, file("localhost/tls.key"))) }, "replaced", "key does not fit"},
		{"a key for all to read", func() { do(os.Chmod(file("localhost/tls.key"), 0o644)) }, "replaced", "key was readable by others"},
		{"all three of another", func() {
			for _, name := range identityFiles {
				copyFile(t, file("query-module/"+name), resolve(t, file("localhost/"+name)))
			}
		}, "replaced", `issued to "query-module"; names changed: - artstore_query_module, - query-module`},
		{"the trust bundle of the directory", func() { do(os.Remove(file("ca.crt"))) }, "kept", "-"},
		{"an unfinished enrolment", func() {
			copyFile(t, file("localhost/tls.key"), file("localhost/pending-00.key"))
			do(os.Remove(file("localhost/current")))
		}, "made", "-"},
		{"an unfinished authority", func() { do(os.Mkdir(file(devUnfinished+"1"), 0o700)) }, "kept", "-"},
		{"a fixture that is none", func() {
			for _, name := range identityFiles {
				copyFile(t, file("localhost/"+name), resolve(t, file("fixtures/expired/"+name)))
			}
		}, "kept", "-"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.harm()
			code, out, talk := devCertsRun(t, dir)
			line := lineOf(out, file("localhost"))
			if code != exitOK || !strings.HasPrefix(line, c.state+" ") || !strings.Contains(line, "  "+c.why) {
				t.Errorf("exit status %d, %q, want %s because %q\n%s", code, line, c.state, c.why, talk)
			}
			if code, _, talk := devCertsRun(t, dir); code != exitOK || !strings.HasPrefix(talk, "nothing to do\n") {
				t.Errorf("afterwards: exit status %d, %s", code, talk)
			}
			if left, _ := filepath.Glob(file("*/pending-*")); len(left) > 0 || len(globAll(t, file(devUnfinished+"*"))) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if got := leafNamesOf(t, file("localhost")); !equalSets(got, []string{"localhost", "127.0.0.1", "::1"}) {
				t.Errorf("names %q", got)
			}
			devPool(t, file("ca.crt"))
		})
	}
}

// TestDevCertsInterrupted stops a run after each of its first lines; what it
// leaves is not in the way of the next.
func TestDevCertsInterrupted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	for n := range 4 {
		ctx, cancel := context.WithCancel(t.Context())
		out := &stopAfter{lines: n, stop: cancel}
		var talk strings.Builder
		code := run(ctx, stdio{in: strings.NewReader(""), out: out, err: &talk, getenv: func(string) string { return "" }}, []string{"artstore-pki", "dev", "certs", "--renew", dir})
		cancel()
		if code != exitInterrupted || !strings.HasSuffix(talk.String(), "artstore-pki: interrupted\n") {
			t.Fatalf("after %d lines: exit status %d\n%s", n, code, talk.String())
		}
	}
	// The other kind of interruption: no chance to clean up, in the middle of making the authority.
	if err := os.Rename(filepath.Join(dir, "ca"), filepath.Join(dir, devUnfinished+"2")); err != nil {
		t.Fatal(err)
	}
	for _, e := range globAll(t, filepath.Join(dir, "[a-z]*")) {
		if err := os.RemoveAll(e); err != nil {
			t.Fatal(err)
		}
	}
	if code, out, talk := devCertsRun(t, dir); code != exitOK || strings.Count(out, "made ") != len(devNames) {
		t.Errorf("exit status %d\n%s%s", code, out, talk)
	}
	if left := globAll(t, filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// stopAfter is a stdout that ends the run after some lines.
type stopAfter struct {
	lines int
	stop  func()
}

func (s *stopAfter) Write(b []byte) (int, error) {
	if s.lines--; s.lines < 0 {
		s.stop()
	}
	return len(b), nil
}

func TestDevCertsUsage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	for _, c := range []struct {
		args string
		want string
	}{
		{"", "missing argument: want DIR"},
		{dir + " other", `unexpected argument "other"`},
		{dir + " --lifetime soon", "want a length of time like 36h, 14d or 2y"},
		{dir + " --lifetime 9s", "--lifetime 9s: want 10s to 1095d"},
		{dir + " --lifetime 4y", "--lifetime 1460d: want 10s to 1095d"},
		{dir + " --lifetime -30d", "want a length of time"},
		{dir + " --lifetime", "flag needs an argument"},
		{dir + " -o csv", `--output "csv": want table or json`},
		{dir + " --p12", "flag provided but not defined"},
	} {
		code, out, talk := devCertsRun(t, strings.Fields(c.args)...)
		if code != exitUsage || out != "" || !strings.Contains(talk, c.want) {
			t.Errorf("%q: exit status %d, %q; want %q", c.args, code, talk, c.want)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Fatalf("%q made the directory", c.args)
		}
	}
}

// TestDevCertsManifest: pki.yaml is edited by hand, and is wrong at times.
func TestDevCertsManifest(t *testing.T) {
	dir := devCertsDir(t)
	path := filepath.Join(dir, "ca", "pki.yaml")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, old, new string
		code           int
		want           string
	}{
		{"no YAML", "profiles:", "profiles", exitFailure, "reading configuration"},
		{"a misspelt key", "    names: [\"localhost\"", "    nams: [\"localhost\"", exitFailure, `unknown key "nams"`},
		{"a wildcard", `["localhost"`, `["*.localhost"`, exitFailure, "without wildcard"},
		{"a service in the place of fixtures", `  "query-module":`, `  "fixtures":`, exitFailure, `"fixtures" cannot be a service here`},
		{"a service in the place of the bundle", `  "query-module":`, `  "ca.crt":`, exitFailure, `"ca.crt" cannot be a service here`},
		{"a service out of the directory", `  "query-module":`, `  "../query-module":`, exitFailure, "a service name has"},
		{"a key that nothing here makes", `    names: ["localhost"`, "    key_types: [RSA-4096]\n    names: [\"localhost\"", exitFailure, `unknown key type "rsa-4096"`},
		{"another kind of key", `    names: ["localhost"`, "    key_types: [Ed25519]\n    names: [\"localhost\"", exitOK, ""},
		{"as client only", `    names: ["localhost"`, "    usages: [client]\n    names: [\"localhost\"", exitOK, ""},
	} {
		text := strings.Replace(string(good), c.old, c.new, 1)
		if text == string(good) {
			t.Fatalf("%s: %q is not in pki.yaml", c.name, c.old)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, talk := devCertsRun(t, dir)
		if code != c.code || !strings.Contains(talk, c.want) {
			t.Errorf("%s: exit status %d, %q\n%s", c.name, code, talk, out)
		}
		if c.code == exitOK && strings.Count(out, "replaced ") != 1 {
			t.Errorf("%s: %s", c.name, out)
		}
	}
}

func resolve(t *testing.T, path string) string {
	t.Helper()
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	return real
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func globAll(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// lineOf is the line about a directory, without its end.
func lineOf(out, dir string) string {
	for line := range strings.Lines(out) {
		if strings.Contains(line, " "+dir+" ") {
			return strings.TrimSuffix(line, "\n")
		}
	}
	return ""
}
