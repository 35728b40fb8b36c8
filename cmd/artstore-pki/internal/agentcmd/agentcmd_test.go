package agentcmd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/agentcmd"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/logtest"
	"github.com/artstore/artstore-pki/internal/porttest"
	"github.com/artstore/artstore-pki/rotation/agent"
)

const patience = 3 * time.Minute

// run runs a command line to its end.
func run(ctx context.Context, args ...string) (status int, out, said string) {
	var stdout, stderr bytes.Buffer
	status = runTo(ctx, &stdout, &stderr, args...)
	return status, stdout.String(), stderr.String()
}

func runTo(ctx context.Context, stdout, stderr io.Writer, args ...string) int {
	u := ui.New(ui.Streams{Out: stdout, Err: stderr, Getenv: func(string) string { return "" }})
	app := &cli.App{Name: "artstore-pki", Writer: stdout, ErrWriter: stderr, Commands: []*cli.Command{agentcmd.Command(u)}, ExitErrHandler: func(*cli.Context, error) {}}
	app.HideHelp = true
	for _, c := range app.Commands {
		help.Finish(c)
		hideHelp(c)
	}
	return u.Finish(ctx, app.RunContext(ctx, append([]string{"artstore-pki", "agent"}, args...)), "usage")
}

// hideHelp leaves --help out of a command and of those below it: the library has one for the whole program,
// and here several commands run at the same time.
func hideHelp(c *cli.Command) {
	c.HideHelp = true
	for _, sub := range c.Subcommands {
		hideHelp(sub)
	}
}

// world is an authority and a configuration of an agent with three identities: the program of the
// second one is away, and the third one has a hook that fails.
type world struct {
	dir, config, socket, metrics string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	authority := catest.Start(t, catest.Options{})
	w := &world{dir: t.TempDir()}
	w.config, w.socket = filepath.Join(w.dir, "agent.yaml"), filepath.Join(w.dir, "s")
	var err error
	if w.metrics, err = porttest.FreeAddress(); err != nil {
		t.Fatal(err)
	}
	for _, service := range []string{"ingester", "admin-module", "query-module"} {
		w.write(t, service+".token", authority.Token(t, service).Expose())
	}
	w.write(t, "agent.yaml", strings.NewReplacer("URL", authority.URL, "PRINT", authority.RootFingerprint, "DIR", w.dir, "METRICS", w.metrics).Replace(`ca_url: URL
root_fingerprint: PRINT
socket: DIR/s
metrics: METRICS
identities:
- {name: web, service: ingester, dir: DIR/web, token_file: DIR/ingester.token}
- {name: gone, service: query-module, dir: DIR/gone, token_file: DIR/query-module.token, hook: {command: ["true"], settle: 50ms}, serves: [{address: "127.0.0.1:1"}]}
- {name: db, dir: DIR/db, token_file: DIR/admin-module.token, hook: {command: [sh, -c, "echo unit is masked; exit 4"]}}
`))
	return w
}

func (w *world) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start runs the agent until stop is called; stop returns its exit status.
func (w *world) start(t *testing.T) (stop func() int, log *logtest.Buffer) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	log, done := &logtest.Buffer{}, make(chan int, 1)
	go func() { done <- runTo(ctx, io.Discard, log, "--config", w.config) }()
	return func() int { cancel(); return <-done }, log
}

// until repeats a question to another goroutine until the answer is right.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !ok(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%s: not seen", what)
		}
	}
}

func TestCommands(t *testing.T) {
	w := newWorld(t)
	stop, log := w.start(t)
	var st agent.Status
	until(t, "a failed hook beside a delivery", func() bool {
		status, out, _ := run(t.Context(), "status", "--socket", w.socket, "-o", "json")
		if status != 0 || json.Unmarshal([]byte(out), &st) != nil {
			return false
		}
		return st.Identities[0].Delivery.State == "delivered" && st.Identities[1].Delivery.Alarm && st.Identities[2].Delivery.Alarm
	})
	status, out, said := run(t.Context(), "status", "--socket", w.socket)
	if lines := strings.Split(out, "\n"); status != 0 || said != "" || !strings.HasPrefix(lines[0], "NAME  SERVICE") ||
		!strings.Contains(lines[1], "delivered  -") || !strings.Contains(lines[2], "127.0.0.1:1: not asked which certificate it serves: connecting: connect: connection refused") || !strings.Contains(lines[3], "alarm      the new files are not in effect: running sh: exit status 4: unit is masked") {
		t.Errorf("status: %d\n%s%s", status, out, said)
	}
	if status, out, _ := run(t.Context(), "check", "--socket", w.socket); status != 1 || !strings.HasPrefix(out, "gone: the new files are not in effect: 127.0.0.1:1: ") || !strings.HasSuffix(out, "\ndb: the new files are not in effect: running sh: exit status 4: unit is masked\n") {
		t.Errorf("check: %d\n%s", status, out)
	}
	if status, out, said := run(t.Context(), "renew", "--socket", w.socket, "web"); status != 0 || out != "" || said != "web: renewed\n" {
		t.Errorf("renew: %d\n%s%s", status, out, said)
	}
	if status, _, said := run(t.Context(), "renew", "--socket", w.socket, "nobody"); status != 1 || !strings.Contains(said, `renewing "nobody": there is no identity of this name`) {
		t.Errorf("renew: %d\n%s", status, said)
	}
	w.metricsAre(t)
	if status, _, said := run(t.Context(), "--config", w.config); status != 1 || !strings.Contains(said, "another process serves this socket") || !strings.Contains(said, "hint: one agent serves a socket") {
		t.Errorf("a second agent: %d\n%s", status, said)
	}
	if status := stop(); status != 0 {
		t.Errorf("stopped with %d:\n%s", status, log)
	}
	for _, command := range []string{"status", "check", "renew web"} {
		args := append(strings.Fields(command)[:1], "--socket", w.socket)
		args = append(args, strings.Fields(command)[1:]...)
		if status, _, said := run(t.Context(), args...); status != 1 || !strings.Contains(said, "hint: the agent is not running") {
			t.Errorf("%s without an agent: %d\n%s", command, status, said)
		}
	}
}

// ask sends a request to the listener of the metrics.
func ask(t *testing.T, address, path string) (int, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// livez returns the status of /livez, 0 if nobody answers.
func (w *world) livez(t *testing.T, address string) int {
	t.Helper()
	code, _, err := ask(t, address, "/livez")
	if err != nil {
		return 0
	}
	return code
}

// metricsAre looks at /metrics, /livez and /readyz.
func (w *world) metricsAre(t *testing.T) {
	t.Helper()
	get := func(path string) (int, string) {
		t.Helper()
		code, body, err := ask(t, w.metrics, path)
		if err != nil {
			t.Fatal(err)
		}
		return code, body
	}
	_, body := get("/metrics")
	for _, want := range []string{
		`artstore_agent_problem{identity="db"} 1`, `artstore_agent_problem{identity="web"} 0`, `artstore_agent_alarm{identity="db"} 1`,
		`artstore_agent_has_certificate{identity="web"} 1`, `artstore_agent_hook_failures_total{identity="db"} `, `artstore_identity_generation{identity="web"} `,
		`artstore_agent_delivered_timestamp_seconds{identity="web"} `, "artstore_agent_config_refused 0\n",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable || !strings.HasPrefix(body, "gone: the new files") {
		t.Errorf("readyz: %d %s", code, body)
	}
	if code, _ := get("/livez"); code != http.StatusOK {
		t.Errorf("livez: %d", code)
	}
}

func TestConfigurationFaults(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "agent.yaml")
	for text, want := range map[string]string{
		"ca_url: https://ca.example\nidentities:\n- dir: /a\n  hoook: x\n": `error: reading ` + path + `: line 4: unknown key "hoook"`,
		"": "error: reading " + path + ": the file is empty",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if status, out, said := run(t.Context(), "--config", path); status != 1 || out != "" || !strings.Contains(said, want) {
			t.Errorf("%q: %d\n%s%s", text, status, out, said)
		}
	}
	if status, _, _ := run(t.Context(), "--config", path, "extra"); status != 2 {
		t.Errorf("an argument: %d", status)
	}
	if status, _, _ := run(t.Context(), "status", "-o", "xml"); status != 2 {
		t.Errorf("a format: %d", status)
	}
	if status, _, _ := run(t.Context(), "renew"); status != 2 {
		t.Errorf("renew without a name: %d", status)
	}
}

// TestOnce: the status says whether all went well.
func TestOnce(t *testing.T) {
	w := newWorld(t)
	status, _, said := run(t.Context(), "--config", w.config, "--once")
	if status != 1 || !strings.Contains(said, "error: identity db: running sh: exit status 4: unit is masked") || strings.Contains(said, "identity web:") {
		t.Errorf("%d\n%s", status, said)
	}
}

// TestNotify: systemd hears that the agent is ready, how it is, that it lives and that it ends.
func TestNotify(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(w.dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "300000")
	stop, _ := w.start(t)
	read := func() string {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		message := make([]byte, 1024)
		n, err := conn.Read(message)
		if err != nil {
			t.Fatal(err)
		}
		return string(message[:n])
	}
	if got := read(); !strings.HasPrefix(got, "READY=1\nSTATUS=") {
		t.Errorf("first message %q", got)
	}
	for range 2 {
		if got := read(); !strings.HasPrefix(got, "WATCHDOG=1\nSTATUS=") {
			t.Errorf("next message %q", got)
		}
	}
	if status := stop(); status != 0 {
		t.Errorf("status %d", status)
	}
	for got := read(); got != "STOPPING=1"; got = read() {
		if !strings.HasPrefix(got, "WATCHDOG=1") {
			t.Fatalf("last message %q", got)
		}
	}
}
