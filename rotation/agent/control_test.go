//go:build unix

package agent_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/internal/unixsocket"
	"github.com/artstore/artstore-pki/rotation/agent"
)

func statusText(t *testing.T, a *agent.Agent) []string {
	t.Helper()
	text, err := json.MarshalIndent(a.Status(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return strings.SplitAfter(string(text), "\n")
}

// TestControl: the socket answers its user, and no other one, even if the mode lets him.
func TestControl(t *testing.T) {
	t.Parallel()
	w := newWorld(t, catest.Options{})
	w.cfg.StatusFile = filepath.Join(w.dir, "status.json")
	w.identity("ingester", nil)
	a, _ := w.run()
	dir, err := os.MkdirTemp("", "agent") //nolint:usetesting // the directory of t is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	ln, err := unixsocket.Listen(t.Context(), unixsocket.Socket{Path: socket})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.ServeControl(ctx, ln) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	first := w.await(a, "ingester", "delivered", delivered)
	c := agent.Control{Socket: socket}
	s, err := c.Status(t.Context())
	if err != nil || len(s.Identities) != 1 || s.Identities[0].Serial != first.Serial || len(s.Problems()) != 0 {
		t.Fatalf("status %+v, %v", s, err)
	}
	if err := c.Renew(t.Context(), "ingester"); err != nil {
		t.Fatal(err)
	}
	next := w.await(a, "ingester", "the next one", func(s agent.IdentityStatus) bool { return delivered(s) && s.Serial != first.Serial })
	if err := c.Renew(t.Context(), "a b?&"); err == nil || err.Error() != `the agent: renewing "a b?&": there is no identity of this name` {
		t.Errorf("an unknown name: %v", err)
	}
	if _, err := (agent.Control{Socket: filepath.Join(dir, "absent")}).Status(t.Context()); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no socket: %v", err)
	}
	for limit := time.Now().Add(patience); ; {
		if data, err := os.ReadFile(w.cfg.StatusFile); err == nil && strings.Contains(string(data), next.Serial) {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("the status file does not follow")
		}
		pause(20 * time.Millisecond)
	}
	if os.Geteuid() != 0 {
		t.Skip("asking as another user takes root")
	}
	for path, mode := range map[string]os.FileMode{dir: 0o755, socket: 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "curl", "--silent", "--show-error", "--unix-socket", socket, "http://agent/status")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1600, Gid: 1600}}
	if out, err := cmd.CombinedOutput(); err == nil || strings.Contains(string(out), "ingester") {
		t.Errorf("another user got: %s", out)
	}
}
