//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAgentCrashes kills a rotation by the agent at each system call that changes the disk; an
// ordinary run takes a part of them. What lies there is the old set or the new one in all formats,
// and never a mix. The next start finishes: what the hook has loaded is what lies there.
func TestAgentCrashes(t *testing.T) {
	afterKills(t)
	needTracing(t)
	t.Parallel()
	w := renewingFixture(t, "\n    lifetime: {default: 10s, min: 10s, grace: 3h}")
	w.agentConfig(t)
	w.ok(t, "agent", "--once", "--config", "agent.yaml")
	whole := filepath.Join(w.dir, "whole")
	must(t, os.Rename(filepath.Join(w.dir, "id"), whole))
	time.Sleep(10 * time.Second) // the certificate is over then, so each run renews it by the grace
	cutRenewals{least: 30, misses: 3, cut: w.agentCut}.run(t,
		"renameat", "symlinkat", "linkat", "unlinkat", "mkdirat", "fchmod", "fchmodat", "fchownat", "fsync", "pwrite64", "clone3", "clone")
}

// agentConfig makes a configuration of the agent for a certificate of ingester.
func (w *killFixture) agentConfig(t *testing.T) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(w.dir, "password"), []byte("correct horse"), 0o600))
	text := fmt.Sprintf(`ca_url: %s
identities:
- name: web
  service: ingester
  dir: %[2]s/id
  token_file: %[2]s/token
  owner: "%d"
  mode: "0640"
  formats:
  - {kind: combined-pem}
  - {kind: pkcs12, password_file: %[2]s/password}
  hook:
    command: [sh, -c, 'cat "$ROTATED_DIR/tls.crt" >%[2]s/loaded; echo >>%[2]s/runs']
`, w.url(t, "ca.url"), w.dir, os.Geteuid())
	must(t, os.WriteFile(filepath.Join(w.dir, "agent.yaml"), []byte(text), 0o600))
}

// agentCut runs the agent on a copy of the directory, killed at the nth call of a kind, and then
// again. It says whether the run was cut, and whether the files were new then.
func (w *killFixture) agentCut(t *testing.T, kind string, n int) (cut, renewed bool) {
	t.Helper()
	at := fmt.Sprintf("%s %d", kind, n)
	for _, name := range []string{"id", "loaded", "runs"} {
		must(t, os.RemoveAll(filepath.Join(w.dir, name)))
	}
	must(t, exec.CommandContext(t.Context(), "cp", "-a", filepath.Join(w.dir, "whole"), filepath.Join(w.dir, "id")).Run())
	old := w.content(t, "id/tls.crt")
	must(t, os.WriteFile(filepath.Join(w.dir, "loaded"), []byte(old), 0o600))
	cmd := exec.CommandContext(t.Context(), "strace", append(killAt(os.DevNull, kind, kind, n), w.program, "agent", "--once", "--config", "agent.yaml")...)
	cmd.Dir, cmd.Env = w.dir, append(os.Environ(), "GOMAXPROCS=1") // fewer threads
	out, err := cmd.CombinedOutput()
	if cut = killed(err); !cut && err != nil && !bytes.Contains(out, []byte("signal: killed")) { // the hook is killed at its own calls
		t.Fatalf("%s: %v\n%s", at, err, out)
	}
	now := w.content(t, "id/tls.crt")
	renewed = now != old
	w.oneSet(t, at)
	w.ok(t, "agent", "--once", "--config", "agent.yaml")
	w.oneSet(t, at+", after the next start")
	now = w.content(t, "id/tls.crt")
	if now == old {
		t.Errorf("%s: the next start has not finished the rotation", at)
	}
	if w.content(t, "loaded") != now {
		t.Errorf("%s: the hook has not run for the files in the directory", at)
	}
	return cut, renewed
}

// oneSet wants all files in the directory to be of one generation, with their modes.
func (w *killFixture) oneSet(t *testing.T, when string) {
	t.Helper()
	cert, key, pem := w.content(t, "id/tls.crt"), w.content(t, "id/tls.key"), w.content(t, "id/tls.pem")
	if cert == "" || pem != key+cert {
		t.Errorf("%s: tls.pem is not of the generation of tls.crt and tls.key", when)
	}
	ctx := t.Context()
	out, err := exec.CommandContext(ctx, "openssl", "pkcs12", "-in", filepath.Join(w.dir, "id/tls.p12"), "-passin", "pass:correct horse", "-nokeys", "-clcerts").Output()
	_, body, _ := strings.Cut(cert, "-----BEGIN CERTIFICATE-----")
	body, _, _ = strings.Cut(body, "-----END")
	if err != nil || !strings.Contains(string(out), strings.TrimSpace(body)) {
		t.Errorf("%s: tls.p12 is not of the generation of tls.crt: %v", when, err)
	}
	for _, name := range []string{"tls.key", "tls.pem", "tls.p12"} {
		if info, err := os.Stat(filepath.Join(w.dir, "id", name)); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("%s: %s: %v, %v", when, name, info, err)
		}
	}
}
