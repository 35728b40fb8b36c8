package monitoring

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/porttest"
)

const (
	leafLifetime = "60s"
	// patience bounds each wait. What is waited for takes seconds; the rest is for a busy machine.
	patience = 4 * time.Minute
	// evaluation is how often Prometheus evaluates the rules and reads the metrics.
	evaluation = "1s"
)

// local asks servers of this machine in cleartext.
var local = &http.Client{Transport: &http.Transport{}}

// stack is a whole house of our programs, each a process of its own, and a Prometheus that reads all of them.
type stack struct {
	t          *testing.T
	dir, pki   string
	processes  map[string]*exec.Cmd
	addresses  map[string]string // of metrics, by job
	ca         string            // URL of the authority
	dashboard  string            // address
	prometheus string            // URL
}

// newStack builds the command. The caller starts what it needs.
func newStack(t *testing.T) *stack {
	t.Helper()
	s := &stack{t: t, dir: t.TempDir(), processes: map[string]*exec.Cmd{}, addresses: map[string]string{}}
	s.pki = filepath.Join(s.dir, "artstore-pki")
	s.must("go", "build", "-o", s.pki, "../cmd/artstore-pki")
	return s
}

// path returns the path of a file of the stack.
func (s *stack) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// must runs a command to its end, which must be good.
func (s *stack) must(args ...string) string {
	s.t.Helper()
	out, err := exec.CommandContext(s.t.Context(), args[0], args[1:]...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// start starts a program under a name; it ends with the test, and its log is shown if the test fails.
func (s *stack) start(name string, args ...string) {
	s.t.Helper()
	log, err := os.Create(s.path(name + ".log"))
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(s.t.Context()), args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	if old := s.processes[name]; old == nil {
		s.t.Cleanup(func() {
			s.stop(name)
			if s.t.Failed() {
				text, _ := os.ReadFile(log.Name())
				s.t.Logf("the end of the log of %s:\n%s", name, text[max(0, len(text)-4000):])
			}
		})
	}
	s.processes[name] = cmd
}

// stop ends a program and waits for it.
func (s *stack) stop(name string) {
	cmd := s.processes[name]
	if cmd == nil || cmd.ProcessState != nil {
		return
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
}

// serve starts a service whose metrics are read under a job, and returns the content of its ready file.
func (s *stack) serve(name, job string, args ...string) string {
	s.t.Helper()
	ready := s.path(name + ".ready")
	_ = os.Remove(ready)
	s.start(name, append(append([]string{s.pki}, args...), "--ready-file", ready, "--metrics", s.metrics(name, job))...)
	var text []byte
	s.await(name+" to be ready", func() bool {
		text, _ = os.ReadFile(ready)
		return len(text) > 0
	})
	return strings.TrimSpace(string(text))
}

// metrics returns the address where a service shows its metrics, always the same for a name.
func (s *stack) metrics(name, job string) string {
	s.t.Helper()
	key := job + " " + name
	if s.addresses[key] == "" {
		address, err := porttest.FreeAddress()
		if err != nil {
			s.t.Fatal(err)
		}
		s.addresses[key] = address
	}
	return s.addresses[key]
}

// await waits until a condition holds.
func (s *stack) await(what string, holds func() bool) {
	s.t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("waited for %s", what)
		}
	}
}

// startHouse starts an authority, the reference services, an ingester that is never without a file, an
// agent and a proxy.
func (s *stack) startHouse() {
	s.t.Helper()
	s.must(s.pki, "dev", "bootstrap", "--dir", s.path("ca"), "--dns", "localhost", "--dns", "127.0.0.1", "--lifetime", leafLifetime)
	s.append("ca/pki.yaml", `  "web": {names: ["localhost"], lifetime: {default: 10m, max: 10m}}
  "gateway": {names: ["localhost", "127.0.0.1"]}
  "prometheus": {names: ["prometheus"]}
`)
	s.newTokens("admin-module", "storage-element", "ingester", "web", "gateway", "prometheus")
	s.dashboard = s.metrics("dashboard", "")
	s.ca = s.serve("ca", "artstore-authority", "serve", "--dir", s.path("ca"), "--listen", loopback, "--dashboard", s.dashboard)
	admin := s.serve("admin", "artstore-services", slices.Concat([]string{"dev", "admin"}, s.identity("admin-module"), []string{
		"--dir", s.path("admin"), "--listen", loopback, "--allow", "ingester", "--allow", "storage-element", "--bound-tokens",
		"--account", "ingester", "--account-secret-file", s.path("secret"), "--account-id-file", s.path("id"),
	})...)
	storage := s.serve("storage", "artstore-services", slices.Concat([]string{"dev", "storage"}, s.identity("storage-element"), []string{
		"--dir", s.path("storage"), "--listen", loopback, "--allow", "ingester", "--jwks-url", admin + "/.well-known/jwks.json",
		"--metrics-tls", s.metrics("storage over mutual TLS", secureJob), "--metrics-peers", "prometheus",
	})...)
	s.startIngest(admin, storage)
	s.startAgent()
	s.startExporter(storage)
	plain := httptest.NewServer(http.NotFoundHandler())
	s.t.Cleanup(plain.Close)
	s.serve("gateway", "artstore-proxy", slices.Concat([]string{"proxy", "server"}, s.identity("gateway"), []string{
		"--listen", loopback, "--to", plain.Listener.Addr().String(), "--protocol", "http", "--allow", "ingester",
	})...)
}

// newTokens writes a token for each service.
func (s *stack) newTokens(services ...string) {
	s.t.Helper()
	args := []string{s.pki, "dev", "bootstrap", "--dir", s.path("ca")}
	for _, name := range services {
		args = append(args, "--token", name+"="+s.path(name+".token"))
	}
	s.must(args...)
}

const (
	loopback  = "127.0.0.1:0"
	secureJob = "artstore-mutual-tls" // is read over mutual TLS
)

// identity returns the flags of a service that gets its certificate from the authority.
func (s *stack) identity(name string) []string {
	return []string{"--ca-url", s.ca, "--token-file", s.path(name + ".token"), "--state", s.path(name + "-id")}
}

// startIngest starts an ingester, and puts a file into its directory all the time.
func (s *stack) startIngest(admin, storage string) {
	s.t.Helper()
	s.write("in/first", "a file")
	s.start("ingest", slices.Concat([]string{s.pki, "ingest", s.path("in"), "--settle", "0s", "--admin-url", admin, "--storage-url", storage,
		"--client-id-file", s.path("id"), "--client-secret-file", s.path("secret"), "--metrics", s.metrics("ingest", "artstore-ingest")}, s.identity("ingester"))...)
	ctx, stop := context.WithCancel(context.WithoutCancel(s.t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-time.After(500 * time.Millisecond):
				_ = os.WriteFile(s.path("in", fmt.Sprintf("file-%d", n)), []byte("a file"), 0o600) // the ingester reports what it does not get
			}
		}
	}()
	s.t.Cleanup(func() { stop(); <-done })
}

// startAgent starts an agent that keeps a certificate for a web server, and that of Prometheus.
func (s *stack) startAgent() {
	s.t.Helper()
	s.write("agent.yaml", fmt.Sprintf(`ca_url: %s
metrics: %s
socket: %s
identities:
  - name: web
    service: web
    dir: %s
    token_file: %s
    hook: {command: ["true"]}
  - name: prometheus
    service: prometheus
    dir: %s
    token_file: %s
`, s.ca, s.metrics("agent", "artstore-agent"), s.path("agent.sock"), s.path("web"), s.path("web.token"), s.path("prometheus"), s.path("prometheus.token")))
	s.start("agent", s.pki, "agent", "--config", s.path("agent.yaml"))
	s.await("the files of the agent", func() bool {
		_, web := os.Stat(s.path("web/tls.crt"))
		_, own := os.Stat(s.path("prometheus/tls.crt"))
		return web == nil && own == nil
	})
}

// startExporter starts an exporter that audits the files of the agent, a server and the record.
func (s *stack) startExporter(server string) {
	s.t.Helper()
	s.configureExporter(server)
	s.start("exporter", s.pki, "exporter", "--config", s.path("exporter.yaml"), "--listen", s.metrics("exporter", "artstore-exporter"))
}

// configureExporter writes the configuration of the exporter.
func (s *stack) configureExporter(servers ...string) {
	s.t.Helper()
	s.write("exporter.yaml", fmt.Sprintf(`targets: [%q, %q, %s]
trust_bundle: %[4]s/ca.crt
client: {cert: %[4]s/tls.crt, key: %[4]s/tls.key}
record: %s
every: {servers: 2s, record: 2s}
`, s.path("web"), s.path("prometheus"), strings.Join(servers, ", "), s.path("web"), s.path("ca")))
}

// startPrometheus starts a Prometheus with our rules that reads the metrics of all that was started.
func (s *stack) startPrometheus(binary string) {
	s.t.Helper()
	rules, err := filepath.Abs("rules.yaml")
	if err != nil {
		s.t.Fatal(err)
	}
	jobs := map[string][]string{}
	for key, address := range s.addresses {
		job, _, _ := strings.Cut(key, " ")
		if job == "" {
			continue // no metrics
		}
		jobs[job] = append(jobs[job], address)
	}
	config := fmt.Sprintf("global: {scrape_interval: %s, evaluation_interval: %[1]s}\nrule_files: [%q]\nscrape_configs:\n", evaluation, rules)
	for _, job := range slices.Sorted(maps.Keys(jobs)) {
		config += fmt.Sprintf("  - job_name: %s\n    static_configs: [{targets: [%s]}]\n", job, strings.Join(jobs[job], ", "))
		if job == secureJob {
			config += fmt.Sprintf("    scheme: https\n    tls_config: {ca_file: %s/ca.crt, cert_file: %[1]s/tls.crt, key_file: %[1]s/tls.key, min_version: TLS13}\n", s.path("prometheus"))
		}
	}
	s.write("prometheus.yaml", config)
	address, err := porttest.FreeAddress()
	if err != nil {
		s.t.Fatal(err)
	}
	s.prometheus = "http://" + address
	s.start("prometheus", binary, "--config.file", s.path("prometheus.yaml"), "--storage.tsdb.path", s.path("tsdb"), "--web.listen-address", address)
	s.await("Prometheus", func() bool { return s.answers("/-/ready") })
}

// append writes text at the end of a file of the stack.
func (s *stack) append(name, text string) {
	s.t.Helper()
	old, err := os.ReadFile(s.path(name))
	if err == nil {
		err = os.WriteFile(s.path(name), append(old, text...), 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// write writes a file of the stack.
func (s *stack) write(name, text string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// query asks Prometheus for an expression, and returns the values by their labels.
func (s *stack) query(expr string) (out map[string]string) {
	s.t.Helper()
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	s.get("/api/v1/query?query="+url.QueryEscape(expr), &answer)
	if answer.Status != "success" {
		s.t.Fatalf("%s: %s", expr, answer.Error)
	}
	out = map[string]string{}
	for _, r := range answer.Data.Result {
		out[fmt.Sprint(r.Metric)] = fmt.Sprint(r.Value[1])
	}
	return out
}

// get asks the API of Prometheus.
func (s *stack) get(path string, answer any) {
	s.t.Helper()
	resp, err := local.Do(s.request(path))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		s.t.Fatal(err)
	}
}

// answers reports whether Prometheus answers a request with status 200.
func (s *stack) answers(path string) bool {
	resp, err := local.Do(s.request(path))
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (s *stack) request(path string) *http.Request {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.prometheus+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return req
}

// read returns the body of a page.
func (s *stack) read(url string) string {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := local.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(body)
}

// connects reports whether something listens at an address.
func (s *stack) connects(address string) bool {
	var d net.Dialer
	conn, err := d.DialContext(s.t.Context(), "tcp", address)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}
