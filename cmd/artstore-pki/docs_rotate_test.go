package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/credentials"
	"github.com/artstore/artstore-pki/internal/certs"
)

// TestRotationProgram builds the program of docs/operations.md as it stands there,
// and rotates with it: an intermediate beside a running authority, which signs with
// it after SIGHUP, then a root.
func TestRotationProgram(t *testing.T) {
	long(t, "it builds a program and rotates a root")
	t.Parallel()
	_, rest, _ := strings.Cut(readDoc(t, "operations.md"), "<!-- rotate.go: built and run by a test -->\n```go\n")
	source, _, found := strings.Cut(rest, "```\n<!-- /rotate.go -->")
	if !found {
		t.Fatal("docs/operations.md has no rotate.go")
	}
	self, err := os.Executable()
	must(t, err)
	w := &killFixture{dir: t.TempDir()}
	w.program = filepath.Join(w.dir, "artstore-pki")
	must(t, os.Symlink(self, w.program))
	file, rotate := filepath.Join(w.dir, "rotate.go"), filepath.Join(w.dir, "rotate")
	must(t, os.WriteFile(file, []byte(source), 0o600))
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", rotate, file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), rotate, append([]string{"ca"}, args...)...)
		var talk bytes.Buffer
		cmd.Dir, cmd.Stderr = w.dir, &talk
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("rotate %v: %v\n%s", args, err, &talk)
		}
		return strings.TrimSpace(string(out))
	}
	w.ok(t, "init", "--dir", "ca", "--plain-keys", "--dns", "localhost", "--dns", "127.0.0.1")
	serve := w.start(t, "serve", "--dir", "ca", "--listen", "127.0.0.1:0", "--ready-file", "ca.url")
	url := w.url(t, "ca.url")
	first := w.issuer(t, url)

	run("intermediate")
	must(t, serve.cmd.Process.Signal(syscall.SIGHUP))
	deadline := time.Now().Add(scriptWait)
	for w.issuer(t, url) == first {
		if time.Now().After(deadline) {
			t.Fatalf("nothing is issued by the new intermediate\n%s", serve.out)
		}
	}
	added := run("add-root")
	if got := run("pending"); !strings.Contains(got, "ingester") {
		t.Errorf("services that do not trust the new root yet: %q", got)
	}
	run("activate", added)
	if now, err := ca.StateDir(filepath.Join(w.dir, "ca")).ActiveRoot(); err != nil || certs.Fingerprint(now) != added {
		t.Errorf("the active root is not %s, %v", added, err)
	}
}

// issuer enrols and returns the fingerprint of the intermediate that signed.
func (w *killFixture) issuer(t *testing.T, url string) string {
	t.Helper()
	var token bytes.Buffer
	cmd := w.command(t.Context(), new(bytes.Buffer), []string{"token", "ingester", "--dir", "ca"})
	cmd.Stdout = &token
	must(t, cmd.Run())
	must(t, os.WriteFile(filepath.Join(w.dir, "token"), token.Bytes(), 0o600))
	w.ok(t, "issue", "--ca-url", url, "--token-file", "token", "--out", "id")
	chain, err := credentials.ReadChain(filepath.Join(w.dir, "id", "tls.crt"))
	must(t, err)
	return certs.Fingerprint(chain[1])
}
