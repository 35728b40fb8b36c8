package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/ingestclient/spool"
	"github.com/artstore/artstore-pki/internal/logtest"
)

// killsEnv asks for the long version, as `make soak` does: 200 kills, 2 000 files.
const killsEnv = "ARTSTORE_INGEST_KILLS"

// TestIngestSurvivesKill kills `ingest` at random instants, and the Storage Element at some of them,
// until all files are stored. The processes are real, with mutual TLS and certificate-bound tokens.
// Each file must be at the element exactly once, with its checksum. Only where the element makes ids
// itself may a file be listed as ambiguous instead.
func TestIngestSurvivesKill(t *testing.T) {
	afterKills(t)
	t.Parallel()
	kills := 12
	if v := os.Getenv(killsEnv); v != "" {
		var err error
		if kills, err = strconv.Atoi(v); err != nil || kills < 1 {
			t.Fatalf("%s=%q: want a number of kills", killsEnv, v)
		}
	}
	files := map[bool]int{true: 300, false: 2000}[kills < 100]
	w := newKillFixture(t)
	for _, dialect := range []string{"python", "go"} {
		w.rounds(t, dialect, kills, files)
	}
}

// killFixture has the authority and the Admin Module, which are not killed, and the certificates of
// ingest and of the Storage Element, which are.
type killFixture struct {
	program, dir, admin, element string
}

func newKillFixture(t *testing.T) *killFixture {
	t.Helper()
	w := &killFixture{dir: t.TempDir(), element: freeAddress(t)}
	w.program = selfAs(t, w.dir)
	w.ok(t, "dev", "bootstrap", "--dir", "ca", "--dns", "localhost", "--dns", "127.0.0.1",
		"--token", "admin-module=admin.token", "--token", "storage-element=storage.token", "--token", "ingester=ingester.token")
	w.start(t, "serve", "--dir", "ca", "--listen", "127.0.0.1:0", "--ready-file", "ca.url")
	ca := w.url(t, "ca.url")
	for _, who := range []string{"admin", "storage", "ingester"} {
		w.ok(t, "issue", "--ca-url", ca, "--token-file", who+".token", "--out", who+"-id")
	}
	w.start(t, append([]string{"dev", "admin", "--dir", "admin", "--listen", "127.0.0.1:0", "--ready-file", "admin.url", "--allow", "ingester",
		"--allow", "storage-element", "--bound-tokens", "--account", "ingester", "--account-secret-file", "secret", "--account-id-file", "id"}, certFlags("admin")...)...)
	w.admin = w.url(t, "admin.url")
	return w
}

// selfAs is a path by which the test binary is the program.
func selfAs(t *testing.T, dir string) string {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	program := filepath.Join(dir, "artstore-pki")
	must(t, os.Symlink(self, program))
	return program
}

func certFlags(who string) []string {
	return []string{"--cert", who + "-id/tls.crt", "--key", who + "-id/tls.key", "--ca-cert", who + "-id/ca.crt"}
}

func (w *killFixture) command(ctx context.Context, out io.Writer, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, w.program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = w.dir, out, out
	return cmd
}

func (w *killFixture) ok(t *testing.T, args ...string) {
	t.Helper()
	var out bytes.Buffer
	if err := w.command(t.Context(), &out, args).Run(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, &out)
	}
}

// process is a process of the program that runs until kill.
type process struct {
	cmd *exec.Cmd
	out *logtest.Buffer // written while it runs
}

func (w *killFixture) start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{out: &logtest.Buffer{}}
	p.cmd = w.command(context.WithoutCancel(t.Context()), p.out, args)
	must(t, p.cmd.Start())
	t.Cleanup(p.kill)
	return p
}

// kill ends the process. It may be called again. The exit status is ignored: the signal caused it.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Signal(syscall.SIGKILL)
		_ = p.cmd.Wait()
	}
}

func (w *killFixture) url(t *testing.T, file string) string {
	t.Helper()
	deadline := time.Now().Add(scriptWait)
	for {
		b, err := os.ReadFile(filepath.Join(w.dir, file))
		if err == nil && len(b) > 0 {
			return strings.TrimSpace(string(b))
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s did not appear", file)
		}
		time.Sleep(10 * time.Millisecond) // another process writes it: there is nothing to wait on
	}
}

func (w *killFixture) storage(t *testing.T, dialect string) *process {
	p := w.start(t, append([]string{"dev", "storage", "--dir", "storage-" + dialect, "--dialect", dialect, "--listen", w.element, "--allow", "ingester",
		"--require-bound", "--jwks-url", w.admin + "/.well-known/jwks.json"}, certFlags("storage")...)...)
	deadline := time.Now().Add(scriptWait)
	for {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", w.element)
		if err == nil {
			_ = c.Close()
			return p
		}
		if time.Now().After(deadline) {
			t.Fatalf("the Storage Element does not answer: %s", p.out)
		}
		time.Sleep(5 * time.Millisecond) // another process
	}
}

// ingest returns the command line of an ingest whose pauses are as short as they can be.
func (w *killFixture) ingest(dir, dialect string) []string {
	ids := map[string]string{"python": "client", "go": "auto"}[dialect] // auto has to find out that the element makes ids itself
	return append([]string{"ingest", dir, "--once", "--settle", "0s", "--rescan", "50ms", "--file-ids", ids}, w.access()...)
}

// access returns the flags with which a command that uploads reaches the services.
func (w *killFixture) access() []string {
	return append([]string{"--admin-url", w.admin, "--storage-url", "https://" + w.element, "--client-id-file", "id", "--client-secret-file", "secret"},
		certFlags("ingester")...)
}

func (w *killFixture) rounds(t *testing.T, dialect string, kills, files int) {
	t.Helper()
	dir := "in-" + dialect
	want := map[string]string{} // checksum by name
	must(t, os.Mkdir(filepath.Join(w.dir, dir), 0o700))
	storage := w.storage(t, dialect)
	begun, restarts, written := time.Now(), 0, 0
	for n := range kills {
		// Work for each round, so that no kill meets an idle process.
		for ; written < files*(n+1)/kills; written++ {
			name, content := fmt.Sprintf("file-%05d.bin", written), fileContent(written)
			must(t, os.WriteFile(filepath.Join(w.dir, dir, name+".part"), content, 0o600))
			must(t, os.Rename(filepath.Join(w.dir, dir, name+".part"), filepath.Join(w.dir, dir, name)))
			digest := sha256.Sum256(content)
			want[name] = hex.EncodeToString(digest[:])
		}
		p := w.start(t, w.ingest(dir, dialect)...)
		// Start-up takes about a tenth of a second, then files flow.
		time.Sleep(60*time.Millisecond + time.Duration(rand.Int64N(int64(200*time.Millisecond)))) // the instant is the experiment
		if n%4 == 3 {
			restarts++
			storage.kill()
		}
		p.kill()
		if n%4 == 3 {
			storage = w.storage(t, dialect)
		}
	}
	var out bytes.Buffer
	err := w.command(t.Context(), &out, w.ingest(dir, dialect)).Run()
	if exit, ok := err.(*exec.ExitError); err != nil && (!ok || exit.ExitCode() != exitFailedFiles && exit.ExitCode() != ui.ExitOK) { //nolint:errorlint // os/exec wraps nothing here
		t.Fatalf("the last run: %v\n%s", err, &out)
	}
	w.compare(t, dialect, want)
	w.settle(t, dir, w.ingest(dir, dialect))
	copies := w.copies(t, dialect, "", want)
	for name := range want {
		if copies[name] != 1 {
			t.Errorf("%s: %d copies, after all was settled", name, copies[name])
		}
	}
	storage.kill()
	t.Logf("%s: %d files, %d kills of ingest, %d of the element, in %s", dialect, files, kills, restarts, time.Since(begun).Round(time.Second))
}

// fileContent is unique to n; sizes from 0 to 64 KiB, small ones more often.
func fileContent(n int) []byte {
	size := n * 7919 % (1 << (6 + n%11))
	return bytes.Repeat([]byte(fmt.Sprintf("%08d", n)), 1+size/8)
}

// compare compares the files with the disk of the Storage Element and the directories of the spool.
func (w *killFixture) compare(t *testing.T, dialect string, want map[string]string) {
	t.Helper()
	copies := w.copies(t, dialect, "", want)
	st, err := spool.ReadStatus(t.Context(), spool.Config{Dir: filepath.Join(w.dir, "in-"+dialect)})
	must(t, err)
	ambiguous := map[string]string{}
	for _, it := range st.Ambiguous {
		ambiguous[it.Name] = it.ID
	}
	if n := len(st.Waiting) + len(st.Claimed) + len(st.Failed); n > 0 {
		t.Errorf("%d files are left: %+v", n, st)
	}
	for name := range want {
		if copies[name] > 1 || copies[name] == 0 && ambiguous[name] == "" {
			t.Errorf("%s: %d copies, ambiguous %q", name, copies[name], ambiguous[name])
		}
	}
	if dialect == "python" && len(ambiguous) > 0 {
		t.Errorf("%d files are ambiguous although ids are ours", len(ambiguous))
	}
	unknown := 0
	for name := range ambiguous {
		unknown += copies[name]
	}
	t.Logf("%s: %d files, %d stored, each once; %d listed as ambiguous, %d of them are stored", dialect, len(want), len(copies), len(ambiguous), unknown)
}

// settle has ingest resolve decide about ambiguous files: first about those that are stored, then, as
// if time had passed, about the others. After the run of ingest that follows, each file is stored
// once.
func (w *killFixture) settle(t *testing.T, dir string, run []string) {
	t.Helper()
	for range 2 {
		var out bytes.Buffer
		err := w.command(t.Context(), &out, append([]string{"ingest", "resolve", dir, "--auto", "--yes"}, w.access()...)).Run()
		if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != exitFailedFiles) {
			t.Fatalf("ingest resolve: %v\n%s", err, &out)
		}
		reasons, err := filepath.Glob(filepath.Join(w.dir, dir, spool.StateDir, "ambiguous", "*", "reason.json"))
		must(t, err)
		for _, path := range reasons {
			var r map[string]any
			raw, err := os.ReadFile(path)
			must(t, err)
			must(t, json.Unmarshal(raw, &r))
			r["at"] = time.Now().Add(-time.Hour)
			raw, err = json.Marshal(r)
			must(t, err)
			must(t, os.WriteFile(path, raw, 0o600))
		}
	}
	w.ok(t, run...)
}

// copies counts what the Storage Element has of each file whose name begins so,
// by its own disk. Each must have the checksum of want.
func (w *killFixture) copies(t *testing.T, dialect, prefix string, want map[string]string) map[string]int {
	t.Helper()
	copies := map[string]int{}
	metas, err := filepath.Glob(filepath.Join(w.dir, "storage-"+dialect, "files", "*.json"))
	must(t, err)
	for _, path := range metas {
		var m struct {
			ID   string `json:"file_id"`
			Name string `json:"original_filename"`
		}
		raw, err := os.ReadFile(path)
		must(t, err)
		must(t, json.Unmarshal(raw, &m))
		if !strings.HasPrefix(m.Name, prefix) {
			continue
		}
		content, err := os.ReadFile(strings.TrimSuffix(path, ".json"))
		must(t, err)
		if digest := sha256.Sum256(content); hex.EncodeToString(digest[:]) != want[m.Name] {
			t.Errorf("%s: stored as %s with another checksum", m.Name, m.ID)
		}
		copies[m.Name]++
	}
	return copies
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
