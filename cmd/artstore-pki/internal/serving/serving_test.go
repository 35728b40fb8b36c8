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

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/porttest"
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

// Readiness is asked at each request, its reason cannot write to a terminal, and
// metrics are of the process.
func TestMetrics(t *testing.T) {
	address, err := porttest.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	var down atomic.Bool
	m := serving.Metrics{Address: address, Registry: serving.NewRegistry(), Ready: func(context.Context) error {
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
	if code, body := get("/metrics"); code != http.StatusOK || !strings.Contains(body, "go_goroutines") {
		t.Errorf("metrics: %d %.80q", code, body)
	}
	stop()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}
