package main

import (
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/porttest"
)

// TestHangupReloads sends SIGHUP with a good and with a bad pki.yaml, and asks
// the loopback listener whether the authority is still ready after each.
func TestHangupReloads(t *testing.T) {
	p := &program{t: t, dir: t.TempDir()}
	p.ok("init", "--plain-keys", "--dir", p.path("ca"))
	metrics := freeAddress(t)
	p.serve("url", "serve", "--dir", p.path("ca"), "--listen", "127.0.0.1:0", "--metrics", metrics)
	good := p.read("ca/pki.yaml")

	hangup := func(content, want string) {
		t.Helper()
		p.write("ca/pki.yaml", content)
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		p.await(want)
		if status, body := get(t, "http://"+metrics+"/readyz"); status != http.StatusOK {
			t.Errorf("not ready after %q: %d %s", want, status, body)
		}
	}
	hangup(good+"\ncolour: blue\n", "configuration not reloaded, the old one stays: ")
	// A change of what is opened at the start only is refused, and no other change takes effect.
	for key, content := range map[string]string{
		"address":     strings.Replace(good, "address: ", "address: 127.0.0.1:1 # ", 1),
		"metrics":     good + "\nmetrics: 127.0.0.1:1",
		"crl_address": good + "\ncrl_address: 127.0.0.1:1",
	} {
		hangup(content+"\n", key+": it does not change while the authority runs; restart it")
	}
	hangup(good+"\n", "authority: configuration reloaded")

	if _, body := get(t, "http://"+metrics+"/metrics"); !strings.Contains(body, "artstore_ca_certificates_issued_total") {
		t.Error("the metrics do not count issued certificates")
	}
	if status, _ := get(t, "http://"+metrics+"/livez"); status != http.StatusOK {
		t.Errorf("livez: %d", status)
	}
	if out := p.stop(); !strings.Contains(out, "authority: stopped") {
		t.Errorf("no clean stop:\n%s", out)
	}
}

// await waits until the output holds want.
func (p *program) await(want string) {
	p.t.Helper()
	deadline := time.After(scriptWait)
	for !strings.Contains(p.output(), want) {
		select {
		case <-deadline:
			p.t.Fatalf("no %q in the output:\n%s", want, p.tail())
		case <-time.After(10 * time.Millisecond): // a signal's effect shows in the output only
		}
	}
}

// freeAddress is a loopback address that was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	addr, err := porttest.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
