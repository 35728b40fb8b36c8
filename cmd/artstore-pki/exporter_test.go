package main

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ask returns the answer to a request for path, which may name another host.
func ask(t *testing.T, url, host string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), scriptWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	must(t, err)
	req.Host = host
	resp, err := (&http.Client{Timeout: scriptWait}).Do(req)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(text)
}

// SIGHUP lets a running exporter read its configuration: one with a fault leaves the old one, and is
// a metric and a line of the log. Over loopback, no host of a stranger is answered.
func TestExporterHangup(t *testing.T) {
	w := &killFixture{dir: t.TempDir()}
	w.program = selfAs(t, w.dir)
	w.ok(t, "init", "--plain-keys", "--dir", "ca", "--name", "Test")
	config := filepath.Join(w.dir, "exporter.yaml")
	must(t, os.WriteFile(config, []byte("targets: [ca/certs/root_ca.crt]\n"), 0o600))
	p := w.start(t, "exporter", "--config", "exporter.yaml", "--listen", "127.0.0.1:0", "--ready-file", "url")
	url := w.url(t, "url")
	until := func(what string) {
		t.Helper()
		for late := time.Now().Add(scriptWait); ; time.Sleep(50 * time.Millisecond) {
			code, text := ask(t, url+"/metrics", "")
			if code == http.StatusOK && strings.Contains(text, what) {
				return
			}
			if time.Now().After(late) {
				t.Fatalf("never: %s\n%s", what, p.out.String())
			}
		}
	}
	until("artstore_exporter_ready 1")
	must(t, os.WriteFile(config, []byte("targets: [ca/certs/root_ca.crt]\nevery: 5\n"), 0o600))
	must(t, p.cmd.Process.Signal(syscall.SIGHUP))
	until("artstore_exporter_config_good 0")
	if log := p.out.String(); !strings.Contains(log, "exporter.yaml: line 2: every: want keys with values") {
		t.Errorf("the log: %s", log)
	}
	must(t, os.WriteFile(config, []byte("targets: [ca/certs]\n"), 0o600))
	must(t, p.cmd.Process.Signal(syscall.SIGHUP))
	until(`artstore_exporter_source_up{kind="path",source="ca/certs"} 1`)
	for host, code := range map[string]int{"": 200, "localhost": 200, "localhost:1": 200, "[::1]:80": 200, "evil.example": 421, "evil.example:80": 421, "127.0.0.1.evil.example": 421} {
		if got, _ := ask(t, url+"/healthz", host); got != code {
			t.Errorf("host %q: %d, want %d", host, got, code)
		}
	}
}
