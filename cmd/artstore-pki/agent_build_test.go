//go:build !agent

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// maxAgentBytes bounds the stripped program without the authority.
const maxAgentBytes = 25_000_000

// TestBuildWithoutAuthority builds the program as packages for machines without an authority do,
// and lets it do what a client does with an authority of the whole program.
func TestBuildWithoutAuthority(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "artstore-pki-agent")
	goTool(t, "build", "-tags", "agent", "-trimpath", "-ldflags", "-s -w", "-o", program, ".")
	info, err := os.Stat(program)
	must(t, err)
	t.Logf("%d bytes", info.Size())
	if info.Size() > maxAgentBytes {
		t.Errorf("the program has %d bytes, more than %d", info.Size(), maxAgentBytes)
	}
	for dep := range strings.FieldsSeq(goTool(t, "list", "-tags", "agent", "-deps", ".")) {
		if ofAuthority(dep) {
			t.Errorf("it links %s", dep)
		}
	}
	w := &killFixture{dir: t.TempDir(), program: program}
	t.Run("says what is left out", func(t *testing.T) { saysWhatIsLeftOut(t, w) })
	t.Run("is a client", func(t *testing.T) { isClient(t, w) })
}

// ofAuthority reports whether a package is of the authority or came with it. The words of the
// record are for all who read it.
func ofAuthority(dep string) bool {
	const own = "github.com/artstore/artstore-pki/"
	return dep != own+"ca/record" && slices.ContainsFunc([]string{
		own + "ca/", "github.com/smallstep/", "go.step.sm/", "modernc.org/", "github.com/jackc/", "github.com/pressly/",
	}, func(prefix string) bool { return strings.HasPrefix(dep+"/", prefix) })
}

// goTool runs the go command without cgo and returns what it prints.
func goTool(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %q: %v\n%s", args, err, errs.String())
	}
	return string(out)
}

// end runs the program to its end and returns what it printed and its exit status.
func (w *killFixture) end(t *testing.T, args ...string) (out string, status int) {
	t.Helper()
	var b bytes.Buffer
	cmd := w.command(t.Context(), &b, args)
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatalf("%v: %v", args, err)
	}
	return b.String(), cmd.ProcessState.ExitCode()
}

func saysWhatIsLeftOut(t *testing.T, w *killFixture) {
	page, _ := w.end(t, "--help")
	for _, c := range authorityCommands(ui.New(ui.Streams{})) {
		if !strings.Contains(page, " "+c.Name) || strings.Contains(page, c.Usage) {
			t.Errorf("--help does not say that %s is left out", c.Name)
		}
		out, status := w.end(t, c.Name, "--dir", "x", "y")
		if status != ui.ExitUsage || !strings.Contains(out, "error: this build has no authority: "+c.Name+" is a command of the whole program") ||
			!strings.Contains(out, "hint: the program on the authority's machine") {
			t.Errorf("%s: status %d\n%s", c.Name, status, out)
		}
	}
	for _, c := range clientCommands(ui.New(ui.Streams{})) {
		if !strings.Contains(page, c.Usage) {
			t.Errorf("--help has no %s", c.Name)
		}
	}
	for _, args := range [][]string{{"token", "ingester"}, {"fingerprint"}, {"audit", "--record", "ca"}} {
		if out, status := w.end(t, args...); status != ui.ExitUsage || !strings.Contains(out, "this build has no authority") {
			t.Errorf("%q: status %d\n%s", args, status, out)
		}
	}
	if out, status := w.end(t, "--version"); status != 0 || !strings.Contains(out, "(without the authority)") {
		t.Errorf("--version: status %d\n%s", status, out)
	}
}

// isClient enrols, renews and audits with the small program.
func isClient(t *testing.T, w *killFixture) {
	whole := &killFixture{dir: w.dir, program: selfAs(t, w.dir)}
	whole.ok(t, "init", "--dir", "ca", "--plain-keys", "--dns", "localhost", "--dns", "127.0.0.1")
	whole.ok(t, "token", "--dir", "ca", "--out", "token", "ingester")
	whole.start(t, "serve", "--dir", "ca", "--listen", "127.0.0.1:0", "--ready-file", "ca.url")
	w.ok(t, "issue", "--ca-url", whole.url(t, "ca.url"), "--token-file", "token", "--out", "id")
	w.ok(t, "renew", "id")
	w.ok(t, "renew", "--if-due", "id")
	w.ok(t, "inspect", "id")
	w.ok(t, "audit", "id")
	mine, _ := w.end(t, "fingerprint", "id")
	if theirs, status := whole.end(t, "fingerprint", "--dir", "ca"); mine != theirs || status != 0 {
		t.Errorf("the fingerprint is %q, and the authority says %q", mine, theirs)
	}
	if out, status := w.end(t, "token", "--cert", "id", "--ca-url", whole.url(t, "ca.url"), "ingester"); status != ui.ExitFailure || !strings.Contains(out, "enrollers and profiles") {
		t.Errorf("a token of the authority for a service that is no enroller: status %d\n%s", status, out)
	}
}
