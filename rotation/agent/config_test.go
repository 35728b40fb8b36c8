package agent_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit/served"
	"github.com/artstore/artstore-pki/rotation/agent"
)

// configFile returns the path of a file with this text.
func configFile(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// full has each key of the file.
const full = `ca_url: https://ca.example:9443
root_fingerprint: "0000000000000000000000000000000000000000000000000000000000000000"
socket: /run/agent/agent.sock
metrics: 127.0.0.1:9110
status_file: /run/agent/status.json
identities:
  - name: web
    service: web
    names: [web.example, 10.0.0.7]
    dir: /etc/ssl/web
    token_file: /run/agent/web.token
    key_type: RSA-3072
    owner: root
    group: ssl-cert
    mode: "0640"
    formats:
      - {kind: combined-pem}
      - {kind: pkcs12, file: store.p12, password_file: /etc/ssl/password}
    hook: {reload: nginx.service, timeout: 10s, settle: 2s}
    serves:
      - address: localhost:443
      - {address: "postgres://localhost", server_name: db}
  - dir: /var/lib/db/tls
    ca_url: https://other.example
    authority_name: other.example
    hook: {signal: HUP, pid_file: /run/db.pid}
`

func TestReadConfig(t *testing.T) {
	c, err := agent.ReadConfig(configFile(t, full), served.Check)
	if err != nil {
		t.Fatal(err)
	}
	web, db := c.Identities[0], c.Identities[1]
	if c.Socket != "/run/agent/agent.sock" || c.Metrics != "127.0.0.1:9110" || c.StatusFile != "/run/agent/status.json" {
		t.Errorf("got %+v", c)
	}
	if web.Name != "web" || web.URL != "https://ca.example:9443" || web.Access != (agent.Access{Owner: "root", Group: "ssl-cert", Mode: 0o640}) {
		t.Errorf("got %+v", web)
	}
	if want := (&agent.Hook{Reload: "nginx.service", Timeout: 10 * time.Second, Settle: 2 * time.Second}); !reflect.DeepEqual(web.Hook, want) {
		t.Errorf("hook %+v", web.Hook)
	}
	if len(web.Formats) != 2 || web.Formats[0].File != "tls.pem" || web.Formats[1].File != "store.p12" {
		t.Errorf("formats %+v", web.Formats)
	}
	if want := []agent.Address{{Address: "localhost:443"}, {Address: "postgres://localhost", ServerName: "db"}}; !reflect.DeepEqual(web.Serves, want) {
		t.Errorf("serves %+v", web.Serves)
	}
	if db.Name != "tls" || db.URL != "https://other.example" || db.AuthorityName != "other.example" || db.Hook.Timeout != agent.DefaultHookTimeout || db.RootFingerprint != web.RootFingerprint {
		t.Errorf("got %+v", db)
	}
}

// TestGuide: the configuration in the guide is one.
func TestGuide(t *testing.T) {
	guide, err := os.ReadFile(filepath.Join("..", "..", "docs", "agent.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(guide), "```yaml\n")
	text, _, _ = strings.Cut(text, "```")
	c, err := agent.ReadConfig(configFile(t, text), served.Check)
	if err != nil || len(c.Identities) != 3 {
		t.Errorf("%d identities, %v", len(c.Identities), err)
	}
}

// TestConfigFaults expects one line for each fault, with the line in the file.
func TestConfigFaults(t *testing.T) {
	const (
		top = "ca_url: https://ca.example\nidentities:\n- dir: /a\n"
		key = "\nca_url: https://ca.example\nidentities:\n- dir: /a\n  "
	)
	for text, want := range map[string][]string{
		"":                         {"the file is empty"},
		top + "  hoook: x\n":       {`line 4: unknown key "hoook"`},
		"identities: []\n":         {"line 1: identities: want 1 to 1000 identities, not 0"},
		"identities:\n- dir: /a\n": {"line 2: identities[0]: configuring enrolment: "},
		"ca_url: https://ca.example\nidentities:\n- dir: a\n- dir: /a\n- dir: /a\n": {
			`line 3: identities[0].dir: want an absolute path of a directory for this identity alone, not "a"`,
			`line 4: identities[1].name: "a" is the name of identities[0] too`,
			`line 5: identities[2].name: "a" is the name of identities[1] too`,
			`line 5: identities[2].dir: /a is the directory of identities[1] too`,
		},
		top + "socket: a\n":                              {`line 4: socket: want an absolute path, not "a"`},
		top + "metrics: 0.0.0.0:1\n":                     {`line 4: metrics: want HOST:PORT of loopback, such as 127.0.0.1:9110, not "0.0.0.0:1"`},
		key + "name: 'a b'\n":                            {`line 5: identities[0].name: want letters, digits, dots, dashes and underscores, at most 64, not "a b"`},
		key + "mode: '0644'\n":                           {`line 5: identities[0].mode: want the octal mode of the key, 0400, 0440, 0600 or 0640 in quotes, not "0644"`},
		key + "token_file: t\n":                          {`line 5: identities[0].token_file: want an absolute path, not "t"`},
		key + "key_type: DSA\n":                          {"line 4: identities[0]: configuring enrolment: "},
		key + "formats: [{kind: der}]\n":                 {"line 5: identities[0].formats[0].kind: want one of [combined-pem jks"},
		key + "formats: [{kind: jks}]\n":                 {"line 5: identities[0].formats[0].password_file: want an absolute path for pkcs12"},
		key + "formats: [{kind: sec1, file: tls.key}]\n": {"line 5: identities[0].formats[0].file: want a name without directories"},
		key + "formats: [{kind: sec1, file: ../k}]\n":    {"line 5: identities[0].formats[0].file: want a name without directories"},
		key + "formats: [{kind: sec1}, {kind: sec1}]\n":  {"line 5: identities[0].formats[1].file: tls.sec1.key is the file of another format too"},
		key + "serves: [{address: nowhere}]\n":           {"line 5: identities[0].serves[0].address: an address is HOST:PORT"},
		key + "hook: {}\n":                               {"line 5: identities[0].hook: want one of command, reload, unit, pid_file and url, not 0 of them"},
		key + "hook: {command: [a], reload: b}\n":        {"line 5: identities[0].hook: want one of command, reload, unit, pid_file and url, not 2 of them"},
		key + "hook: {command: []}\n":                    {"line 5: identities[0].hook: no program"},
		key + "hook: {command: [a], signal: HUP}\n":      {"line 5: identities[0].hook: unit and pid_file, and no other way, want a signal"},
		key + "hook: {unit: a, signal: KILL}\n":          {"line 5: identities[0].hook: unit and pid_file, and no other way, want a signal"},
		key + "hook: {reload: '-H'}\n":                   {`line 5: identities[0].hook: want the name of a unit, such as nginx.service, not "-H"`},
		key + "hook: {pid_file: a, signal: HUP}\n":       {`line 5: identities[0].hook: pid_file: want an absolute path, not "a"`},
		key + "hook: {url: 'http://example/x'}\n":        {"line 5: identities[0].hook: url: want https, or http of a loopback address, not http://example"},
		key + "hook: {url: 'https://u:secret@h/'}\n":     {"line 5: identities[0].hook: url: want https://HOST/PATH"},
		key + "hook: {reload: a, timeout: 0s}\n":         {"line 5: identities[0].hook.timeout: want more than 0 and at most 10m0s"},
		key + "hook: {reload: a, settle: 1d}\n":          {"line 5: identities[0].hook.settle: want more than 0 and at most 5m0s"},
		key + "hook: {reload: a, timeout: soon}\n":       {`line 5: identities[0].hook.timeout: want a length of time like 36h, 14d or 2y, not "soon"`},
	} {
		path := configFile(t, text)
		_, err := agent.ReadConfig(path, served.Check)
		if err == nil {
			t.Errorf("%q was accepted", text)
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != len(want) {
			t.Errorf("%q: %d lines, want %d:\n%v", text, len(lines), len(want), err)
			continue
		}
		for n, line := range lines {
			if prefix := "reading " + path + ": " + want[n]; !strings.HasPrefix(line, prefix) {
				t.Errorf("%q:\n%s\nwant\n%s", text, line, prefix)
			}
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("a password is quoted: %v", err)
		}
	}
	if _, err := agent.ReadConfig(filepath.Join(t.TempDir(), "absent"), served.Check); err == nil || !strings.HasPrefix(err.Error(), "reading the configuration: open ") {
		t.Errorf("absent: %v", err)
	}
	if _, err := agent.ReadConfig(configFile(t, strings.Repeat("#", 1<<20+1)), served.Check); err == nil || !strings.Contains(err.Error(), "longer than 1048576 bytes") {
		t.Errorf("long: %v", err)
	}
}

// Contract: any text is a configuration or an error whose lines name the file. A configuration has
// absolute directories, each once, and hooks of one way.
func FuzzConfig(f *testing.F) {
	f.Add(full)
	f.Add("identities:\n- &a {dir: /a}\n- *a\n")
	f.Add("identities: [{dir: /a, hook: {command: [x], timeout: 1y}}]")
	f.Fuzz(func(t *testing.T, text string) {
		path := configFile(t, text)
		c, err := agent.ReadConfig(path, served.Check)
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if !strings.HasPrefix(line, "reading ") {
					t.Errorf("%q: %v", text, err)
				}
			}
			return
		}
		dirs := map[string]bool{}
		for _, i := range c.Identities {
			if !filepath.IsAbs(i.Dir) || dirs[i.Dir] || i.Name == "" {
				t.Errorf("%q: %+v", text, i)
			}
			dirs[i.Dir] = true
		}
		if _, err := agent.New(c, agent.Options{Served: servedBy}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}
