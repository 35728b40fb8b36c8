package main

import (
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
	"time"

	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/credentials"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/devcerts"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/humantime"
)

// devCertsRun runs the command and returns its status and what it printed.
func devCertsRun(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, talk strings.Builder
	code = run(t.Context(), ui.Streams{In: strings.NewReader(""), Out: &out, Err: &talk, Getenv: func(string) string { return "" }},
		append([]string{"artstore-pki", "dev", "certs"}, args...))
	return code, out.String(), talk.String()
}

// devCertsDir is a directory that the command filled; its parents were not there.
func devCertsDir(t *testing.T, args ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "not", "there", "certs")
	if code, out, talk := devCertsRun(t, append(args, dir)...); code != ui.ExitOK {
		t.Fatalf("exit status %d\n%s%s", code, out, talk)
	}
	return dir
}

// devCertsPlain is the same over an authority whose keys are not encrypted: with
// the race detector, deriving keys from passwords takes most of a minute.
func devCertsPlain(t *testing.T, life time.Duration, args ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "certs")
	_, err := setup.Init(t.Context(), setup.Options{Dir: filepath.Join(dir, "ca"), LeafLifetime: life, Profiles: devcerts.Profiles(), PlainKeys: true})
	if err != nil {
		t.Fatal(err)
	}
	if code, out, talk := devCertsRun(t, append(args, dir)...); code != ui.ExitOK {
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
	roots, err := credentials.ReadChain(path)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	return pool
}

// handshake is TLS 1.3 with certificates on both sides, and one byte in each direction: only the
// answer shows that the server has accepted the certificate of the client.
func handshake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	ln, err := net.Listen("tcp", serving.Loopback) // not net.Pipe: there, two alerts wait for each other
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

// TestDevCerts looks at what one run on a clean machine has made.
func TestDevCerts(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	t.Parallel() // with the other long ones, most of which wait
	dir := devCertsDir(t, "--expired", "--not-yet-valid")
	t.Run("handshakes", func(t *testing.T) { devHandshakes(t, dir) })
	t.Run("faults of old", func(t *testing.T) { devOldFaults(t, dir) })
}

// devHandshakes uses every certificate as server and as client, under every name
// that it should have.
func devHandshakes(t *testing.T, dir string) {
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
	return certs.Names(devPair(t, dir).Leaf)
}

func equalSets(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// devOldFaults has a case for each fault of ArtStore's own generate-certs.sh that made its
// certificates useless. The first is the directory: the script failed where it was missing, and
// here three of its parents are missing as well. The last one, a list of cipher suites, has no
// case, because the suites of TLS 1.3 cannot be chosen.
func devOldFaults(t *testing.T, dir string) {
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
	if roots, err := credentials.ReadChain(filepath.Join(dir, "ca.crt")); err != nil || len(roots) != 1 || !roots[0].IsCA {
		t.Errorf("no file to trust by: %d certificates, %v", len(roots), err)
	}
}

func TestDevCertsUsage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	if code, _, talk := devCertsRun(t, ""); code != ui.ExitUsage || !strings.Contains(talk, "empty name") {
		t.Errorf("an empty name: exit status %d, %s", code, talk)
	}
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
		if code != ui.ExitUsage || out != "" || !strings.Contains(talk, c.want) {
			t.Errorf("%q: exit status %d, %q; want %q", c.args, code, talk, c.want)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Fatalf("%q made the directory", c.args)
		}
	}
}

// TestDevCertsManifest runs the command with mistakes in pki.yaml, which is edited by hand.
func TestDevCertsManifest(t *testing.T) {
	dir := devCertsPlain(t, 30*humantime.Day)
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
		{"no YAML", "profiles:", "profiles", ui.ExitFailure, "reading configuration"},
		{"a misspelt key", "    names: [\"localhost\"", "    nams: [\"localhost\"", ui.ExitFailure, `unknown key "nams"`},
		{"a wildcard", `["localhost"`, `["*.localhost"`, ui.ExitFailure, "is a wildcard"},
		{"patterns alone", `  "query-module":`, "  \"workers\": {patterns: [\"*.workers.internal\"]}\n  \"query-module\":", ui.ExitFailure, "profiles.workers lists no names"},
		{"a service in the place of fixtures", `  "query-module":`, `  "fixtures":`, ui.ExitFailure, `"fixtures" cannot be a service here`},
		{"a service in the place of the bundle", `  "query-module":`, `  "ca.crt":`, ui.ExitFailure, `"ca.crt" cannot be a service here`},
		{"a service out of the directory", `  "query-module":`, `  "../query-module":`, ui.ExitFailure, "a service name has"},
		{"a key that nothing here makes", `    names: ["localhost"`, "    key_types: [RSA-2048]\n    names: [\"localhost\"", ui.ExitFailure, `unknown key type`},
		{"another kind of key", `    names: ["localhost"`, "    key_types: [Ed25519]\n    names: [\"localhost\"", ui.ExitOK, ""},
		{"as client only", `    names: ["localhost"`, "    usages: [client]\n    names: [\"localhost\"", ui.ExitOK, ""},
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
		if c.code == ui.ExitOK && strings.Count(out, "replaced ") != 1 {
			t.Errorf("%s: %s", c.name, out)
		}
	}
}
