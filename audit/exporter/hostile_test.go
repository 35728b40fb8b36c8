package exporter_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/artstore/artstore-pki/audit/exporter"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

// evil are texts that a reader of one of the formats would interpret, or that are equal once they
// were cleaned or cut.
var evil = []string{
	"evil \x1b[2J", "evil\nartstore_audit_complete 0", "evil <script>alert(1)</script>", "evil \"><img src=x onerror=alert(1)>", "evil\"} 1\nevil 1\n", `evil\`,
	"evil\u202egpj.exe", "evil\u2028", "evil\u009b31m", "evil\xff", "evil\xfe", "", strings.Repeat("long", 20_000),
}

// Names and paths of strangers do no harm in any answer: no series comes twice, no character steers a
// terminal, no text is markup, and one bad certificate hides no other. promtool accepts the metrics.
func TestHostileNames(t *testing.T) {
	dir := t.TempDir()
	for i, text := range evil {
		p := certtest.New(t, nil, "x", func(c *x509.Certificate) {
			c.Subject, c.Issuer = pkix.Name{CommonName: strings.ToValidUTF8(text, "?")}, pkix.Name{CommonName: "x"}
		})
		name := strings.ReplaceAll(text[:min(len(text), 100)], "/", "_") + ".crt"
		certtest.Must(t, os.WriteFile(filepath.Join(dir, name), certtest.Encode(p), 0o600))
		certtest.Must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i, ".pem")), []byte("-----BEGIN CERTIFICATE-----\n"+text), 0o600))
	}
	good := certtest.New(t, nil, "good")
	certtest.Must(t, os.WriteFile(filepath.Join(dir, "good.crt"), certtest.Encode(good), 0o600))
	r := start(t, "targets: ["+dir+", \"evil\\x1b\\xff.crt\", \"evil\\x1b\\xfe.crt\", \"evil\\\"} 1:7\"]\n")
	series := r.metrics()
	if v, _ := has(series, "artstore_audit_not_after_timestamp_seconds", "good.crt"); v != float64(good.Cert.NotAfter.Unix()) || series["artstore_audit_complete"] != 1 {
		t.Errorf("good.crt ends at %v; complete %v", v, series["artstore_audit_complete"])
	}
	if _, there := series["evil"]; there {
		t.Error("a name is a metric of its own")
	}
	for _, path := range []string{"/metrics", "/", "/report.json"} {
		text := r.get(path).Body.String()
		if !utf8.ValidString(text) {
			t.Errorf("%s is not in UTF-8", path)
		}
		if at := strings.IndexFunc(text, func(c rune) bool {
			return c != '\n' && c != '\t' && (unicode.IsControl(c) || unicode.In(c, unicode.Bidi_Control, unicode.Zl, unicode.Zp))
		}); at >= 0 {
			t.Errorf("%s has a control character: %q", path, text[max(0, at-40):min(len(text), at+40)])
		}
		if path == "/metrics" {
			continue // it is plain text, and says so
		}
		if strings.Contains(text, "<script>alert") || strings.Contains(text, "<img src=x") {
			t.Errorf("%s has markup of a name", path)
		}
	}
	for line := range strings.Lines(r.get("/metrics").Body.String()) {
		if len(line) > 4<<10 {
			t.Errorf("%d bytes in one line: %.200q", len(line), line)
		}
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Log("promtool is not installed: the parser of Prometheus' client has read it")
		return
	}
	cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	cmd.Stdin = r.get("/metrics").Body
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool: %v\n%.2000s", err, out)
	}
}

// The number of series is bounded: what someone should act on comes first, and what is cut is counted.
func TestMaxSeries(t *testing.T) {
	files := map[string][]byte{}
	for i := range 40 {
		files[fmt.Sprintf("%02d.crt", i)] = certtest.Encode(certtest.New(t, nil, fmt.Sprint("fine", i), certtest.Authority))
	}
	files["over.crt"] = certtest.Encode(certtest.New(t, nil, "over", certtest.Lives(2*certtest.Day, certtest.Day)))
	dir := certtest.Write(t, files)
	r := start(t, "targets: ["+dir+"]\nmax_series: 30\n")
	bounded := 0
	series := r.metrics()
	for id := range series {
		if strings.HasPrefix(id, "artstore_audit_") && strings.Contains(id, dir) {
			bounded++
		}
	}
	if bounded == 0 || bounded > 30 {
		t.Errorf("%d series of places", bounded)
	}
	if _, there := has(series, "artstore_audit_certificate_finding", "over.crt", "expired"); !there {
		t.Error("the worst one was cut")
	}
	if series["artstore_audit_series_cut"] < 20 || series["artstore_audit_certificates"] != 41 {
		t.Errorf("%v cut of %v certificates", series["artstore_audit_series_cut"], series["artstore_audit_certificates"])
	}
	r = start(t, "targets: ["+dir+"/00.crt, "+dir+"/01.crt, "+dir+"/02.crt]\nmax_series: 12\n")
	if series := r.metrics(); series["artstore_exporter_sources_cut"] != 2 {
		t.Errorf("%v sources were cut", series["artstore_exporter_sources_cut"])
	}
}

// A configuration with a fault is refused with file and line, and a running exporter keeps the old one.
func TestReload(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	one := certtest.Write(t, map[string][]byte{"one.crt": certtest.Encode(leaf, intermediate)})
	two := certtest.Write(t, map[string][]byte{"two.crt": certtest.Encode(leaf, intermediate), "ca.crt": certtest.Encode(root)})
	r := start(t, "targets: ["+one+"]\n")
	const notAfter = "artstore_audit_not_after_timestamp_seconds"
	r.write("targets: [" + two + "]\nevery: {files: 1s}\ntrust_bundle: " + two + "/ca.crt\nfsat: true\n")
	if err := r.e.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), r.config+": line 4: unknown key \"fsat\"") {
		t.Errorf("the error is %v", err)
	}
	series := r.metrics()
	if _, there := has(series, notAfter, "one.crt"); !there || series["artstore_exporter_config_good"] != 0 || !strings.Contains(r.log.String(), "line 4") {
		t.Errorf("after a bad one: %v %s", series["artstore_exporter_config_good"], r.log.String())
	}
	r.write("targets: [" + two + "]\nevery: {files: 1s}\ntrust_bundle: " + two + "/ca.crt\n")
	certtest.Must(t, r.e.Reload(t.Context()))
	r.until("the new one", func() bool { _, there := has(r.metrics(), notAfter, "two.crt"); return there })
	series = r.metrics()
	if _, there := has(series, notAfter, "one.crt"); there || series["artstore_exporter_config_good"] != 1 {
		t.Error("the old one is still there")
	}
	if _, there := has(series, "artstore_audit_chain_not_after_timestamp_seconds", "two.crt", "ingester"); !there {
		t.Error("the chain was not judged")
	}
	other, _, _ := certtest.Hierarchy(t)
	certtest.Must(t, os.WriteFile(filepath.Join(two, "ca.crt"), certtest.Encode(other, root, other), 0o600)) // another size
	certtest.Must(t, os.WriteFile(filepath.Join(two, "ca.crt"), certtest.Encode(other), 0o600))
	r.until("the new trust bundle", func() bool {
		_, there := has(r.metrics(), "artstore_audit_certificate_finding", "two.crt", "untrusted")
		return there
	})
}

// Revocation lists that the configuration names are read again when they change.
func TestListsAreFollowed(t *testing.T) {
	root := certtest.New(t, nil, "Root", certtest.Authority)
	leaf := certtest.New(t, root, "leaf")
	dir := certtest.Write(t, map[string][]byte{"tls.crt": certtest.Encode(leaf), "ca.crt": certtest.Encode(root)})
	list := filepath.Join(t.TempDir(), "list.der")
	certtest.Must(t, os.WriteFile(list, audittest.CRL(t, root, -3600e9, 3600e9), 0o600))
	r := start(t, "targets: ["+dir+"]\nlists: ["+list+"]\nevery: {files: 1s}\n")
	series := r.metrics()
	if _, there := has(series, "artstore_audit_certificate_finding", "tls.crt", "revoked"); there {
		t.Error("revoked already")
	}
	for name, want := range map[string]float64{"artstore_audit_crl_number": 7} {
		if v, _ := has(series, name, list); v != want {
			t.Errorf("%s: %v", name, v)
		}
	}
	from, _ := has(series, "artstore_audit_crl_this_update_timestamp_seconds", list)
	until, _ := has(series, "artstore_audit_crl_next_update_timestamp_seconds", list)
	if until-from != 7200 {
		t.Errorf("from %v until %v", from, until)
	}
	certtest.Must(t, os.WriteFile(list, certtest.Block("X509 CRL", audittest.CRL(t, root, -3600e9, 3600e9, leaf)), 0o600))
	r.until("it is revoked", func() bool {
		_, there := has(r.metrics(), "artstore_audit_certificate_finding", "tls.crt", "revoked")
		return there
	})
}

// Faults of a configuration name file, line and key, all at once.
func TestConfigFaults(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.yaml")
	for text, want := range map[string][]string{
		"targets: []\n":                                       {"line 1: targets: there is nothing to audit"},
		"targets: [a, -, '@b']\n":                             {"line 1: targets: \"-\": want a path", "\"@b\""},
		"targets: [a]\nonly: [none]\ndisable: [x]\n":          {"line 2: only: there is no check \"none\"", "line 3: disable:"},
		"targets: [a]\nevery:\n  files: 10ms\n":               {"line 3: every: want at least 1s"},
		"targets: [a]\ninclude: ['[']\nmax_series: -1\n":      {"line 2: include: \"[\" is no pattern", "line 3: max_series: want a number above 0"},
		"targets: [a]\nwarn: {share: 2}\n":                    {"line 2: warn: want a length of time, and a share"},
		"targets: [a]\nclient: {cert: x}\n":                   {"line 2: client: want cert and key"},
		"targets: [a]\nclient: {cert: x, key: y}\n":           {"line 2: client: reading certificates: open x"},
		"targets: [a]\ntrust_bundle: none\nbaseline: none\n":  {"line 2: trust_bundle: reading certificates: open none", "line 3: baseline: open none"},
		"targets: [a]\nlists: [none]\npassword_files: [no]\n": {"line 2: lists: reading a revocation list: open none", "line 3: password_files:"},
		"targets: x\n": {"line 1: targets: want a list"},
	} {
		certtest.Must(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := exporter.ReadConfig(path)
		for _, part := range want {
			if err == nil || !strings.Contains(err.Error(), "reading "+path+": ") || !strings.Contains(err.Error(), part) {
				t.Errorf("%q: %v, want %q", text, err, part)
			}
		}
	}
	certtest.Must(t, os.WriteFile(path, []byte("record: https://ca:9443\n"), 0o600))
	if _, err := exporter.New(exporter.Options{ConfigFile: path}); err == nil || !strings.Contains(err.Error(), "reads no record") {
		t.Errorf("a record that cannot be read: %v", err)
	}
	if _, err := exporter.New(exporter.Options{ConfigFile: filepath.Join(dir, "none")}); err == nil {
		t.Error("there is no file, and no error")
	}
	leaf := certtest.New(t, nil, "client")
	other := certtest.New(t, nil, "other")
	for name, data := range map[string][]byte{"c.crt": certtest.Encode(leaf), "c.key": leaf.KeyPEM(t), "o.key": other.KeyPEM(t), "accepted": []byte("weak-key /x\n"), "password": []byte("x\n")} {
		certtest.Must(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	client := func(key string) string {
		return fmt.Sprintf("targets: [a]\nclient: {cert: %s/c.crt, key: %s/%s}\nbaseline: %s/accepted\npassword_files: [%s/password]\n", dir, dir, key, dir, dir)
	}
	certtest.Must(t, os.WriteFile(path, []byte(client("o.key")), 0o600))
	if _, err := exporter.ReadConfig(path); err == nil || !strings.Contains(err.Error(), "does not fit") {
		t.Errorf("a key of another certificate: %v", err)
	}
	r := start(t, client("c.key"))
	if v := r.metrics()["artstore_exporter_client_certificate_not_after_timestamp_seconds"]; v != float64(leaf.Cert.NotAfter.Unix()) {
		t.Errorf("the client certificate ends at %v", v)
	}
}

// Contract: any text is a configuration or is refused with lines that name the file; nothing of it is
// opened but the files that it names.
func FuzzConfig(f *testing.F) {
	f.Add([]byte("targets: [/etc/tls, storage:8010]\nevery: {files: 1m}\nwarn: {before: 30d, share: 0.3}\n"))
	f.Add([]byte("targets: [a]\nonly: [expired]\nmax_series: 7\nclient: {cert: a, key: b}\n"))
	f.Add([]byte("record: https://ca\nlists: [x]\ninclude: ['*.crt']\n"))
	path := filepath.Join(f.TempDir(), "x.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		if strings.Contains(string(data), "/") { // no file of the machine
			return
		}
		certtest.Must(t, os.WriteFile(path, data, 0o600))
		c, err := exporter.ReadConfig(path)
		if (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
		if err == nil {
			return
		}
		for line := range strings.Lines(err.Error()) {
			if !strings.HasPrefix(line, "reading "+path+": ") {
				t.Errorf("%q: %q", data, line)
			}
		}
	})
}
