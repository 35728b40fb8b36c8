package format_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/internal/dertest"
	"github.com/artstore/artstore-pki/audit/internal/format"
	"github.com/artstore/artstore-pki/audit/source"
)

func b64(data []byte) string { return base64.StdEncoding.EncodeToString(data) }

func indent(data []byte) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(string(data)), "\n", "\n    ") + "\n"
}

func TestSecrets(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	other := certtest.New(t, root, "other", certtest.Lives(2*certtest.Day, certtest.Day))
	odd := certtest.New(t, root, "odd", certtest.OddSerial)
	tls := audittest.SecretYAML("tls", "ca.crt", b64(certtest.Encode(root)), "tls.crt", b64(certtest.Encode(leaf, intermediate)), "tls.key", b64(leaf.KeyPEM(t)))
	stream := "# two of them\n---\n" + tls + "--- # and\n" + audittest.SecretYAML("old", "tls.crt", b64(certtest.Encode(other)), "tls.key", b64(leaf.KeyPEM(t))) +
		"---\n" + audittest.SecretYAML("bad", "tls.crt", "'!'", "b.crt", b64([]byte("nothing")), "password", "MDEyMzQ=", "empty.crt", "''") +
		"...\n---\nkind: Deployment\napiVersion: apps/v1\nspec: {{ .Values.broken }}\n---\nkind: Secret\ndata: {{ .Values.tls }}\n" +
		"---\n" + tls
	config := "kind: ConfigMap\napiVersion: v1\nmetadata: {name: roots}\ndata:\n  note: text\n  ca.crt: |\n" + indent(certtest.Encode(root)) +
		"binaryData:\n  odd.der: " + b64(certtest.NegativeSerial(t, odd)) + "\n"
	var plain = "kind: Secret\napiVersion: v1\nmetadata: {name: plain}\nstringData:\n  any: |\n" + indent(append(certtest.Encode(leaf), leaf.KeyPEM(t)...))
	list := map[string]any{"apiVersion": "v1", "kind": "List", "items": []any{
		map[string]any{"kind": "Secret", "metadata": map[string]any{"name": "a", "namespace": "x"}, "data": map[string]string{"tls.crt": b64(certtest.Encode(leaf))}},
		map[string]any{"kind": "Secret", "metadata": map[string]any{"name": []int{7}}, "data": map[string]string{"s.p12": b64(dertest.PFX(dertest.Sequence())), "c.p7b": b64(envelope(other.Cert.Raw))}},
		map[string]any{"kind": "Service", "data": map[string]string{"tls.crt": b64(certtest.Encode(leaf))}},
	}}
	asJSON, err := json.MarshalIndent(list, "", "\t")
	certtest.Must(t, err)
	asYAML := "apiVersion: v1\nkind: List\nitems:\n- " + strings.ReplaceAll(strings.TrimSpace(tls), "\n", "\n  ") + "\n"
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"a stream": {stream, []string{
			"prod/tls:ca.crt Test Root", "prod/tls:tls.crt ingester", "prod/tls:tls.crt Test Intermediate", "prod/tls:tls.key key",
			"prod/old:tls.crt other", "prod/old:tls.key key",
			"prod/bad:tls.crt error: it is not in Base64", "prod/bad:b.crt error: it is neither PEM nor a certificate in DER",
			"document 6 error: it could not be decoded: near line 42 something is wrong",
			"prod/tls (2):ca.crt Test Root", "prod/tls (2):tls.crt ingester", "prod/tls (2):tls.crt Test Intermediate", "prod/tls (2):tls.key key",
		}},
		"ConfigMap": {config, []string{"roots:ca.crt Test Root", "roots:odd.der refused"}},
		"plain":     {plain, []string{"plain:any ingester", "plain:any key"}},
		"JSON list": {string(asJSON), []string{"x/a:tls.crt ingester", "unnamed:c.p7b other", "unnamed:s.p12 error: there is no certificate in it", "document 1 error: 1 of its 3 items could not be read in full"}},
		"YAML list": {asYAML, []string{"prod/tls:ca.crt Test Root", "prod/tls:tls.crt ingester", "prod/tls:tls.crt Test Intermediate", "prod/tls:tls.key key"}},
		"comments":  {"# kind: Secret\n# apiVersion\napiVersion: v1", nil},
		"windows":   {strings.ReplaceAll(tls, "\n", "\r\n"), []string{"prod/tls:ca.crt Test Root", "prod/tls:tls.crt ingester", "prod/tls:tls.crt Test Intermediate", "prod/tls:tls.key key"}},
		"anchors":   {"apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nx-c: &c " + b64(certtest.Encode(leaf)) + "\ndata: {a.crt: *c, b.crt: *c}\n", []string{"x:a.crt ingester", "x:b.crt ingester"}},
	} {
		if got, want := audittest.Describe(audittest.Parts([]byte(c.text))), strings.Join(c.want, ", "); got != want || format.Sniff([]byte(c.text)) != "Kubernetes" {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
	}
	// Objects are judged each by itself: its chain, its key, its roots.
	dir := certtest.Write(t, map[string][]byte{"s.yaml": []byte(stream), "x/plain.yml": []byte(plain), "deploy.yaml": []byte("kind: Deployment\napiVersion: apps/v1\n")})
	certtest.Must(t, os.Chmod(filepath.Join(dir, "x/plain.yml"), 0o644))
	got := audittest.States(t, audittest.Run(t, audittest.Paths(dir)), dir)
	audittest.Want(t, got, map[string]string{
		"s.yaml#prod/tls:ca.crt": "OK", "s.yaml#prod/tls:tls.crt": "OK", "s.yaml#prod/tls:tls.crt#2": "OK", "s.yaml#prod/tls (2):tls.crt": "OK",
		"s.yaml#prod/old:tls.crt": "EXPIRED expired key-mismatch",
		"s.yaml#prod/bad:tls.crt": "ERROR it is not in Base64",
		"s.yaml#prod/bad:b.crt":   "ERROR it is neither PEM nor a certificate in DER",
		"s.yaml#document 6":       "ERROR it could not be decoded: near line 42 something is wrong",
		"x/plain.yml#plain:any":   "WARN key-readable",
	})
}

func TestKubeconfig(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	other := certtest.New(t, root, "other")
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: files
  cluster: {certificate-authority: pki/ca.crt, server: "https://k8s"}
- name: data
  cluster: {certificate-authority-data: %s}
- name: both
  cluster: {certificate-authority-data: %s, certificate-authority: pki/ca.crt}
- name: bad
  cluster: {certificate-authority-data: "!"}
users:
- name: files
  user: {client-certificate: pki/user.crt, client-key: pki/user.key}
- name: data
  user: {client-certificate-data: %s, client-key-data: %s}
- name: wrong
  user: {client-certificate: pki/user.crt, client-key-data: %s}
- name: gone
  user: {client-certificate: gone.crt}
- name: itself
  user: {client-certificate: config}
- name: device
  user: {client-certificate: /dev/zero}
- name: large
  user: {client-certificate: pki/large.crt}
- name: nothing
  user: {client-certificate: pki/nothing.crt, token: abc}
- name: again
  user: {client-certificate: pki/bundle.p7b}
`, b64(certtest.Encode(root)), b64(certtest.Encode(root)), b64(certtest.Encode(leaf, intermediate)), b64(leaf.KeyPEM(t)), b64(other.KeyPEM(t)))
	dir := certtest.Write(t, map[string][]byte{
		"config": []byte(text), "pki/ca.crt": certtest.Encode(root), "pki/user.crt": certtest.Encode(leaf), "pki/user.key": leaf.KeyPEM(t),
		"pki/large.crt": make([]byte, 300<<10), "pki/nothing.crt": certtest.Block("X", nil), "pki/bundle.p7b": envelope(leaf.Cert.Raw),
	})
	certtest.Must(t, os.Chmod(filepath.Join(dir, "pki/user.key"), 0o644))
	r := audittest.Run(t, source.Targets{Names: []string{filepath.Join(dir, "config")}})
	audittest.Want(t, audittest.States(t, r, dir), map[string]string{
		"config#clusters/files:certificate-authority":    "OK", // and the others are the same
		"config#clusters/bad:certificate-authority-data": "ERROR it is not in Base64",
		"config#users/files:client-certificate":          "WARN key-readable",
		"config#users/data:client-certificate-data":      "OK",
		"config#users/data:client-certificate-data#2":    "OK",
		"config#users/wrong:client-certificate":          "CRIT key-mismatch",
		"config#users/gone:client-certificate":           "ERROR no such file or directory",
		"config#users/itself:client-certificate":         "ERROR it is neither PEM nor a certificate in DER",
		"config#users/device:client-certificate":         "ERROR it is no regular file",
		"config#users/large:client-certificate":          "ERROR it is larger than 256 KiB, too much for a file that another one refers to",
		"config#users/nothing:client-certificate":        "ERROR there is no certificate in it, but \"X\"",
		"config#users/again:client-certificate":          "OK",
	})
	for _, row := range r.Rows {
		if row.Cert != nil && row.Cert.X509().Subject.CommonName == "Test Root" && len(row.Also) != 2 {
			t.Errorf("the root is also at %q", row.Also)
		}
	}
	// On standard input, files are looked for where the program runs.
	r = audittest.Run(t, source.Targets{Names: []string{"-"}, Stdin: strings.NewReader(text)})
	if got := audittest.States(t, r, dir)["-#users/gone:client-certificate"]; got != "ERROR no such file or directory" {
		t.Error(got)
	}
	many := "apiVersion: v1\nkind: Config\nusers:\n"
	for i := range 300 {
		many += fmt.Sprintf("- {name: u%d, user: {client-certificate: gone%d}}\n", i, i)
	}
	r = audittest.Run(t, source.Targets{Names: []string{"-"}, Stdin: strings.NewReader(many)})
	if got := audittest.States(t, r, dir)["-#users/u256:client-certificate"]; len(r.Rows) != 257 || !strings.HasPrefix(got, "ERROR it refers to more than 256 files") {
		t.Errorf("%d rows, %s", len(r.Rows), got)
	}
}

// Manifests on which decoders of YAML and JSON work for hours are rows.
func TestHostileManifests(t *testing.T) {
	const head = "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\n"
	laughs := "a: &a [x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c <= 'z'; c++ {
		laughs += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c, ", c-1), 9), ", "))
	}
	var entries strings.Builder
	for i := range 19_000 {
		fmt.Fprintf(&entries, "e%d: '', ", i)
	}
	object := "items:\n- &o {kind: Secret, data: {" + entries.String() + "}}\n" + strings.Repeat("- *o\n", 20_000)
	for name, c := range map[string]struct{ text, want string }{
		"laughs beside":  {head + laughs + "data: {a.crt: '!'}\n", "x:a.crt error: it is not in Base64"},
		"laughs as data": {head + laughs + "data: *z\n", "document 1 error: it could not be decoded"},
		"laughs as item": {"apiVersion: v1\nkind: List\n" + laughs + "items: *z\n", "document 1 error: 9 of its 9 items could not be read in full"},
		"laughs, merged": {"apiVersion: v1\nkind: Secret\n" + "a: &a {x: y}\nb: &b {<<: [" + strings.Repeat("*a, ", 9_000) + "*a]}\ndata: {<<: [" + strings.Repeat("*b, ", 9_000) + "*b]}\n", "document 1 error: it could not be decoded"},
		"itself":         {head + "data: &d {a: *d}\n", "document 1 error: "},
		"many aliases":   {"apiVersion: v1\nkind: List\n" + object, "…"},
		"dense":          {head + "data: [" + strings.Repeat("a,", 1<<20) + "a]\n", "document 1 error: it has more than 200000 values in one document"},
		"dense JSON":     {`{"apiVersion":"v1","kind":"List","items":[` + strings.Repeat("0,", 1<<20) + "0]}", "document 1 error: it has more than 200000 values in one document"},
		"deep":           {head + "data: " + strings.Repeat("[", 150_000), "document 1 error: it could not be decoded"},
		"deep JSON":      {`{"apiVersion":"v1","kind":"List","items":` + strings.Repeat("[", 150_000) + strings.Repeat("]", 150_000) + "}", "document 1 error: it could not be decoded"},
		"indented":       {head + strings.Repeat(" ", 8<<20-100) + "x", "…"},
		"large":          {head + strings.Repeat("#", 8<<20), "error: it is larger than 8 MiB, too much for a manifest"},
		"comments":       {head + strings.Repeat("#\n", 90_000), ""},
		"documents":      {head + strings.Repeat("---\n", 100_000), ""},
		"broken ones":    {strings.Repeat("apiVersion: v1\nkind: Secret\ndata: [\n---\n", 30_000), "…"},
		"plain scalars":  {head + strings.Repeat("x y\n", 90_000), "document 1 error: it could not be decoded"},
		"keys":           {head + strings.Repeat("? ", 90_000), "…"},
		"tags":           {head + "data: !!binary " + strings.Repeat("!a ", 60_000), "document 1 error: it could not be decoded"},
		"secrets quoted": {head + "data: {a: [hunter2]}\nusers: hunter2\n", "document 1 error: it could not be decoded: near line 4 something is wrong"},
	} {
		audittest.Within(t, name, func() {
			got := audittest.Describe(audittest.Parts([]byte(c.text)))
			if c.want == "…" { // whatever it is, as long as it ends
				return
			}
			if got != c.want && (c.want == "" || !strings.HasPrefix(got, c.want)) || strings.Contains(got, "hunter2") {
				t.Errorf("%s: %.300s\nwant %s", name, got, c.want)
			}
		})
	}
	if got := audittest.Describe(audittest.Parts([]byte("apiVersion: v1\nkind: List\n" + object))); !strings.HasPrefix(got, "… error: it holds more than 20000 entries, 16 MiB or 100") {
		t.Errorf("many aliases: %.300s", got)
	}
}

// Contract: any input gives parts or none. Each part has its place, and is a certificate, a
// key, a reference or an error.
func FuzzKube(f *testing.F) {
	_, intermediate, leaf := certtest.Hierarchy(f)
	f.Add([]byte(audittest.SecretYAML("tls", "tls.crt", b64(certtest.Encode(leaf, intermediate)), "tls.key", b64(leaf.KeyPEM(f)))))
	f.Add([]byte("apiVersion: v1\nkind: Config\nusers:\n- {name: u, user: {client-certificate: a, client-key-data: Yg==}}\nclusters: [{cluster: {certificate-authority: ca}}]\n"))
	f.Add([]byte(`{"apiVersion":"v1","kind":"SecretList","items":[{"kind":"Secret","stringData":{"a.crt":"x"}},7]}`))
	f.Add([]byte("---\nkind: List\napiVersion: v1\nitems: [&a {kind: ConfigMap, binaryData: {a.p12: MIIB}}, *a]\n...\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if format.Sniff(data) != "Kubernetes" {
			return
		}
		for _, p := range audittest.Parts(data) {
			if p.Place == "" && !bytes.Contains(data, []byte("kind")) {
				t.Errorf("%+v", p)
			}
		}
	})
}
