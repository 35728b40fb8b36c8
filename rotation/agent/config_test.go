package agent_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit/served"
	"github.com/artstore/artstore-pki/rotation/agent"
	"github.com/artstore/artstore-pki/rotation/workload"
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
workload_api:
  socket: /run/agent/workload.sock
  group: "33"
  rules:
    - {user: root, identities: [web, tls]}
    - {user: "1000", group: "1000", executable: /usr/bin/web, identities: [web]}
    - {group: "1001", identities: [tls]}
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
	if want := (&agent.WorkloadAPI{
		Socket: workload.Socket{Path: "/run/agent/workload.sock", Group: 33},
		Rules: []workload.Rule{
			{User: "root", Identities: []string{"web", "tls"}}, {User: "1000", Group: "1000", Executable: "/usr/bin/web", Identities: []string{"web"}},
			{Group: "1001", Identities: []string{"tls"}},
		},
	}); !reflect.DeepEqual(c.Workload, want) {
		t.Errorf("workload_api %+v", c.Workload)
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
		api = top + "workload_api:\n  socket: /s\n  rules:\n  - "
	)
	for text, want := range map[string][]string{
		"":                         {"the file is empty"},
		top + "  hoook: x\n":       {`line 4: unknown key "hoook"`},
		top + "x: \x01\n":          {"line 4: control characters are not allowed"},
		top + "x: *a\n":            {"line 4: unknown anchor 'a' referenced"},
		top + "---\n" + top:        {"line 4: more than one YAML document"},
		"identities: []\n":         {"line 1: identities: want 1 to 1000 identities, not 0"},
		"identities:\n- dir: /a\n": {"line 2: identities[0]: configuring enrolment: "},
		"ca_url: https://ca.example\nidentities:\n- dir: a\n- dir: /a\n- dir: /a\n": {
			`line 3: identities[0].dir: want an absolute path of a directory for this identity alone, not "a"`,
			`line 4: identities[1].name: "a" is the name of identities[0] too`,
			`line 5: identities[2].name: "a" is the name of identities[1] too`,
			`line 5: identities[2].dir: /a is the directory of identities[1] too`,
		},
		top + "socket: a\n":                                    {`line 4: socket: want an absolute path, not "a"`},
		top + "metrics: 0.0.0.0:1\n":                           {`line 4: metrics: want HOST:PORT of loopback, such as 127.0.0.1:9110, not "0.0.0.0:1"`},
		key + "name: 'a b'\n":                                  {`line 5: identities[0].name: want letters, digits, dots, dashes and underscores, at most 64, not "a b"`},
		key + "mode: '0644'\n":                                 {`line 5: identities[0].mode: want the octal mode of the key, 0400, 0440, 0600 or 0640 in quotes, not "0644"`},
		key + "token_file: t\n":                                {`line 5: identities[0].token_file: want an absolute path, not "t"`},
		key + "key_type: DSA\n":                                {"line 4: identities[0]: configuring enrolment: "},
		key + "formats: [{kind: der}]\n":                       {"line 5: identities[0].formats[0].kind: want one of [combined-pem jks"},
		key + "formats: [{kind: jks}]\n":                       {"line 5: identities[0].formats[0].password_file: want an absolute path for pkcs12"},
		key + "formats: [{kind: sec1, file: tls.key}]\n":       {"line 5: identities[0].formats[0].file: want a name without directories"},
		key + "formats: [{kind: sec1, file: ../k}]\n":          {"line 5: identities[0].formats[0].file: want a name without directories"},
		key + "formats: [{kind: sec1}, {kind: sec1}]\n":        {"line 5: identities[0].formats[1].file: tls.sec1.key is the file of another format too"},
		key + "serves: [{address: nowhere}]\n":                 {"line 5: identities[0].serves[0].address: an address is HOST:PORT"},
		key + "hook: {}\n":                                     {"line 5: identities[0].hook: want one of command, reload, unit, pid_file and url, not 0 of them"},
		key + "hook: {command: [a], reload: b}\n":              {"line 5: identities[0].hook: want one of command, reload, unit, pid_file and url, not 2 of them"},
		key + "hook: {command: []}\n":                          {"line 5: identities[0].hook: no program"},
		key + "hook: {command: [a], signal: HUP}\n":            {"line 5: identities[0].hook: unit and pid_file, and no other way, want a signal"},
		key + "hook: {unit: a, signal: KILL}\n":                {"line 5: identities[0].hook: unit and pid_file, and no other way, want a signal"},
		key + "hook: {reload: '-H'}\n":                         {`line 5: identities[0].hook: want the name of a unit, such as nginx.service, not "-H"`},
		key + "hook: {pid_file: a, signal: HUP}\n":             {`line 5: identities[0].hook: pid_file: want an absolute path, not "a"`},
		key + "hook: {url: 'http://example/x'}\n":              {"line 5: identities[0].hook: url: want https, or http of a loopback address, not http://example"},
		key + "hook: {url: 'https://u:secret@h/'}\n":           {"line 5: identities[0].hook: url: want https://HOST/PATH"},
		key + "hook: {reload: a, timeout: 0s}\n":               {"line 5: identities[0].hook.timeout: want more than 0 and at most 10m0s"},
		key + "hook: {reload: a, settle: 1d}\n":                {"line 5: identities[0].hook.settle: want more than 0 and at most 5m0s"},
		top + "workload_api: {}\n":                             {`line 4: workload_api.socket: want an absolute path, not ""`},
		top + "workload_api: {sokcet: /s}\n":                   {`line 4: unknown key "sokcet"`},
		top + "workload_api: {socket: /a/../s}\nsocket: /s\n":  {`line 4: workload_api.socket: /a/../s is the control socket: want another path`},
		top + "workload_api: {socket: /s, group: root}\n":      {`line 4: workload_api.group: want the name or number of a group other than root, not "root"`},
		top + "workload_api: {socket: /s, group: '-1'}\n":      {`line 4: workload_api.group: want the name or number of a group other than root, not "-1"`},
		top + "workload_api: {socket: /s, group: no-such}\n":   {`line 4: workload_api.group: there is no group "no-such"`},
		api + "{user: root, identites: [a]}\n":                 {`line 7: unknown key "identites"`},
		api + "{identities: [a]}\n":                            {"line 7: workload_api.rules[0]: it names neither a user nor a group"},
		api + "{user: no-such, identities: [a]}\n":             {`line 7: workload_api.rules[0]: finding the user "no-such": `},
		api + "{user: nobody, identities: [a]}\n":              {`line 7: workload_api.rules[0]: the user "nobody" has the id 65534`},
		api + "{user: root, executable: x, identities: [a]}\n": {`line 7: workload_api.rules[0]: the executable "x" is not an absolute path`},
		api + "{user: root}\n":                                 {"line 7: workload_api.rules[0]: it names no identity"},
		api + "{user: root, identities: [a,\n    b]}\n":        {`line 8: workload_api.rules[0].identities[1]: there is no identity "b"`},
		api + "{user: root, identities: [a]}\n  - {user: root, identities: [a]}\n": {
			"line 8: workload_api.rules[1]: rules[0] is for the same programs: want one rule with all their identities",
		},
		api + "{user: root, identities: [a]}\n" + strings.Repeat("  - {user: '1', identities: [a]}\n", 256): {"line 6: workload_api.rules: want at most 256 rules, not 257"},
		key + "hook: {reload: a, timeout: soon}\n":                                                          {`line 5: identities[0].hook.timeout: want a length of time like 36h, 14d or 2y, not "soon"`},
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

// faultLine is the form of each line of an error.
var faultLine = regexp.MustCompile(`^reading [^\n]*/agent\.yaml: (line [1-9][0-9]*: [^\n]+|the file is empty)$`)

// Contract: any text is a configuration, or an error of which each line names the file and a line in
// it. A configuration has absolute directories, each once, hooks of one way, and rules that name
// existing identities and somebody. An agent can be made of it, its status and its rules
// can be asked for, and reading the same text again gives the same.
func FuzzConfig(f *testing.F) {
	f.Add(full)
	for _, text := range []string{
		"identities:\n- &a {dir: /a}\n- *a\n",
		"identities: [{dir: /a, hook: {command: [x], timeout: 1y}}]",
		"workload_api: {rules: [{user: root, identities: [web]}]}",
		"workload_api: &w {socket: /s, group: 1, rules: [&r {user: 1, identities: [a]}, *r]}",
		"workload_api: {socket: /run/agent/agent.sock, group: root, rules: [{group: \"0x1\", executable: //, identities: [web, web]}]}",
		"workload_api: null", "workload_api: []", "workload_api: {socket: [], rules: {}}", "workload_api:\n  rules: [{}, {user: nobody}]\n",
	} {
		f.Add(text)
		f.Add(strings.Replace(full, "workload_api:", "x:", 1) + text)
		f.Add(full[:strings.Index(full, "workload_api:")] + text)
	}
	for n, line := range strings.SplitAfter(full, "\n") { // without a line, with one twice, or with one in another place
		f.Add(strings.Replace(full, line, []string{"", line + line, "  " + line}[n%3], 1))
	}
	f.Fuzz(func(t *testing.T, text string) {
		path := configFile(t, text)
		c, err := agent.ReadConfig(path, served.Check)
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if !faultLine.MatchString(strings.TrimSuffix(line, "\n")) {
					t.Errorf("%q: no place in %q", text, line)
				}
			}
			return
		}
		names := checkIdentities(t, c)
		checkRules(t, c, names)
		a, err := agent.New(c, agent.Options{Served: servedBy, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if s := a.Status(); len(s.Identities) != len(c.Identities) || (s.Workload == nil) != (c.Workload == nil) || s.Workload != nil && s.Workload.Rules != len(c.Workload.Rules) {
			t.Errorf("%q: status %+v", text, s)
		}
		if again, err := agent.ReadConfig(path, served.Check); err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%q: read again, it is %+v, %v", text, again, err)
		}
	})
}

// checkIdentities checks what holds for all identities that are accepted, and returns their names.
func checkIdentities(t *testing.T, c agent.Config) map[string]bool {
	t.Helper()
	names, dirs := map[string]bool{}, map[string]bool{}
	for _, i := range c.Identities {
		if !filepath.IsAbs(i.Dir) || dirs[i.Dir] || i.Name == "" || names[i.Name] {
			t.Errorf("identity %+v", i)
		}
		dirs[i.Dir], names[i.Name] = true, true
	}
	return names
}

// checkRules checks what holds for the rules that are accepted.
func checkRules(t *testing.T, c agent.Config, names map[string]bool) {
	t.Helper()
	if c.Workload == nil {
		return
	}
	if s := c.Workload.Socket; !filepath.IsAbs(s.Path) || s.Group < 0 || s.Path == c.Socket {
		t.Errorf("socket %+v beside %q", s, c.Socket)
	}
	for n, r := range c.Workload.Rules {
		if r.User == "" && r.Group == "" || len(r.Identities) == 0 || r.Check() != nil {
			t.Errorf("rule %+v", r)
		}
		for _, name := range r.Identities {
			if !names[name] {
				t.Errorf("rule %+v names %q", r, name)
			}
		}
		for _, o := range c.Workload.Rules[:n] {
			if o.User == r.User && o.Group == r.Group && o.Executable == r.Executable {
				t.Errorf("two rules for one: %+v", r)
			}
		}
	}
}
