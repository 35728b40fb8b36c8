//go:build linux

package main

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestServeNotifies: a unit of Type=notify is active once the authority answers, and hears that it
// stops.
func TestServeNotifies(t *testing.T) {
	w := &killFixture{dir: t.TempDir()}
	w.program = selfAs(t, w.dir)
	w.ok(t, "init", "--dir", "ca", "--plain-keys", "--dns", "localhost", "--dns", "127.0.0.1")
	path := filepath.Join(w.dir, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { _ = manager.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	serve := w.start(t, "serve", "--dir", "ca", "--listen", "127.0.0.1:0", "--ready-file", "url")
	told := func(want string) {
		t.Helper()
		must(t, manager.SetReadDeadline(time.Now().Add(scriptWait)))
		b := make([]byte, 4096)
		n, err := manager.Read(b)
		if got := string(b[:n]); err != nil || !strings.HasPrefix(got, want) {
			t.Fatalf("told %q, %v, want %s; the authority said\n%s", got, err, want, serve.out)
		}
	}
	told("READY=1\nSTATUS=ready")
	if w.url(t, "url") == "" {
		t.Error("it was ready before it had announced itself")
	}
	must(t, serve.cmd.Process.Signal(syscall.SIGTERM))
	told("STOPPING=1")
	must(t, serve.cmd.Wait())
}
