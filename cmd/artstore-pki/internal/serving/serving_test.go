package serving_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/internal/porttest"
	"github.com/artstore/artstore-pki/rotation"
)

// within runs f in a command with a ready file.
func within(t *testing.T, ready string, f func(*cli.Context)) {
	t.Helper()
	app := &cli.App{Flags: []cli.Flag{flags.Shared(flags.ReadyFile)}, Action: func(c *cli.Context) error { f(c); return nil }}
	if err := app.RunContext(t.Context(), []string{"x", "--" + flags.ReadyFile, ready}); err != nil {
		t.Fatal(err)
	}
}

// A port that is taken has advice, and an address is announced as a client names it.
func TestListen(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	within(t, ready, func(c *cli.Context) {
		ln, err := serving.Listen(c, "listen", ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ln.Close() }()
		if _, err := serving.Listen(c, "listen", ln.Addr().String()); !ui.HasHint(err) {
			t.Errorf("a port that is taken: %v", err)
		}
		_, port, err := net.SplitHostPort(ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if got := serving.URL(ln); got != "https://localhost:"+port {
			t.Errorf("all addresses are %s", got)
		}
		if err := serving.Announce(ui.New(ui.Streams{Err: io.Discard}), c, "x", serving.URL(ln)); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(ready); err != nil || string(text) != "https://localhost:"+port+"\n" {
			t.Errorf("the ready file holds %q, %v", text, err)
		}
	})
}

// away is a metric that cannot be had.
type away struct{}

var awayDesc = prometheus.NewDesc("away", "Of a database that is away.", nil, nil)

func (away) Describe(ch chan<- *prometheus.Desc) { ch <- awayDesc }

func (away) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(awayDesc, errors.New("the database is away"))
}

// Readiness is asked at each request, its reason cannot write to a terminal, and
// metrics are of the process.
func TestMetrics(t *testing.T) {
	address, err := porttest.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	var down atomic.Bool
	registry := serving.NewRegistry()
	registry.MustRegister(away{})
	m := serving.Metrics{Address: address, Registry: registry, Ready: func(context.Context) error {
		if down.Load() {
			return errors.New("down\x1b[2J")
		}
		return nil
	}}
	ctx, stop := context.WithCancel(t.Context())
	group, ctx := errgroup.WithContext(ctx)
	within(t, "", func(c *cli.Context) {
		if err := m.Start(ctx, c, group); err != nil {
			t.Fatal(err)
		}
	})
	get := func(path string) (int, string) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Transport{}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for _, path := range []string{"/readyz", "/health/ready", "/livez", "/health/live"} {
		if code, body := get(path); code != http.StatusOK || body != "ok\n" {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	down.Store(true)
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable || body != "down\\u001b[2J\n" {
		t.Errorf("not ready: %d %q", code, body)
	}
	if code, _ := get("/livez"); code != http.StatusOK {
		t.Errorf("alive: %d", code)
	}
	for range 2 { // the second shows what the first has counted
		if code, body := get("/metrics"); code != http.StatusOK || !strings.Contains(body, "go_goroutines") {
			t.Errorf("metrics beside one that cannot be had: %d %.80q", code, body)
		}
	}
	if _, body := get("/metrics"); !strings.Contains(body, `promhttp_metric_handler_errors_total{cause="gathering"} 2`) {
		t.Error("a metric that cannot be had is not counted")
	}
	stop()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// Over mutual TLS the metrics are for the named peers, and nothing else is served.
func TestMetricsOverTLS(t *testing.T) {
	address, err := porttest.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	pki := pkitest.NewCA(t)
	open := func(name string) *rotation.Identity {
		return pkitest.Open(t, rotation.Config{Source: pkitest.NewSource(pki.Leaf(t, name))})
	}
	m := serving.Metrics{Registry: serving.NewRegistry(), Identity: open("localhost")}
	ctx, stop := context.WithCancel(t.Context())
	group, ctx := errgroup.WithContext(ctx)
	start := func(args ...string) (err error) {
		app := &cli.App{Flags: serving.MetricsFlags(""), Action: func(c *cli.Context) error { err = m.Start(ctx, c, group); return nil }}
		if err := app.RunContext(t.Context(), append([]string{"x"}, args...)); err != nil {
			t.Fatal(err)
		}
		return err
	}
	for _, args := range [][]string{{"--metrics-tls", address}, {"--metrics-peers", "prometheus"}} {
		if err := start(args...); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
	if err := start("--metrics-tls", address, "--metrics-peers", "prometheus,grafana"); err != nil {
		t.Fatal(err)
	}
	get := func(name, path string) (int, error) {
		transport, err := open(name).Transport(rotation.TransportOptions{ServerName: "localhost"})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = transport.Close() }()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	for _, name := range []string{"prometheus", "grafana"} {
		if code, err := get(name, "/metrics"); code != http.StatusOK || err != nil {
			t.Errorf("%s: %d, %v", name, code, err)
		}
	}
	if code, err := get("prometheus", "/readyz"); code != http.StatusNotFound || err != nil {
		t.Errorf("what is not for them: %d, %v", code, err)
	}
	if code, err := get("ingester", "/metrics"); err == nil {
		t.Errorf("another peer: %d", code)
	}
	stop()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	m.Identity = nil
	if err := start("--metrics-tls", address, "--metrics-peers", "prometheus"); err == nil {
		t.Error("served without a certificate")
	}
}
