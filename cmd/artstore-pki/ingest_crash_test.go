//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/artstore/artstore-pki/ingestclient/spool"
)

// crashEnv asks for all points, as the stage crash of .ci/run does ("all"), or for
// those in calls besides that hardly matter, as `make soak` does ("long"). It is an
// error then if strace is missing or may not trace. "none" leaves these tests out: the
// stage test says so if the stage crash follows.
const crashEnv = "ARTSTORE_CRASH_MATRIX"

// changing are the system calls by which ingest changes what is on disk.
var changing = []string{"mkdirat", "renameat", "linkat", "unlinkat", "fsync", "pwrite64", "ftruncate"}

// crashSpool is one way to run ingest, and what may become of its files.
type crashSpool struct {
	dialect, ids, after string
	never               bool // no file may end as ambiguous: the element takes our ids, and ingest was told so
}

// crashTest are the names of tests that the stage crash runs.
var crashTest = regexp.MustCompile(`Crash(es|Matrix)$`)

// TestCrashStage: that stage asks for the same names.
func TestCrashStage(t *testing.T) {
	script, err := os.ReadFile("../../.ci/run")
	must(t, err)
	if want := "-run '" + crashTest.String() + "'"; strings.Count(string(script), want) != 1 {
		t.Errorf("the stage crash of .ci/run does not have %s", want)
	}
}

// TestIngestCrashMatrix cuts the life of files at the system calls that change
// the disk: strace kills ingest when one of its threads makes the Nth call of a
// kind, for each kind and for N from 1 until a run ends by itself. Some of the
// starts that follow are killed as well. Then each file is at the element once
// with its checksum, or ambiguous; and the source is where --on-success says.
//
// Without the environment variable, a few points of each kind of spool are drawn.
func TestIngestCrashMatrix(t *testing.T) {
	afterKills(t)
	all, kinds := os.Getenv(crashEnv) != "", changing
	if os.Getenv(crashEnv) == "long" {
		kinds = append(kinds, "write", "fchmod", "renameat2") // to sockets, temporary files and the terminal; of files that Linux does not link
	}
	needTracing(t)
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := newKillFixture(t)
	elements := map[string]*killFixture{}
	for _, dialect := range []string{"python", "go"} {
		own := *w
		own.element = freeAddress(t)
		own.storage(t, dialect)
		elements[dialect] = &own
	}
	points := &crashPoints{seen: map[string]bool{}}
	t.Run("spools", func(t *testing.T) {
		for _, after := range []string{"delete", "move", "keep"} {
			for _, s := range []crashSpool{
				{"python", "client", after, true}, {"python", "auto", after, false}, {"go", "auto", after, false},
			} {
				name := s.dialect + "-" + s.ids + "-" + s.after
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					m := &crashMatrix{killFixture: elements[s.dialect], crashSpool: s, name: name, random: rand.New(rand.NewPCG(seed, 0)), points: points}
					if all {
						m.all(t, kinds)
					} else {
						m.some(t, kinds)
					}
				})
			}
		}
	})
	t.Logf("%d kills at %d different points", points.kills, len(points.seen))
	if all && len(points.seen) < 200 && !t.Failed() {
		t.Error("fewer than 200")
	}
}

// needTracing skips a test if strace cannot kill programs here, or fails it if all points were asked for.
// The stage crash chooses the tests that call it by their names.
func needTracing(t *testing.T) {
	t.Helper()
	if !crashTest.MatchString(t.Name()) {
		t.Fatalf("the stage crash of .ci/run does not know the name %s", t.Name())
	}
	if os.Getenv(crashEnv) == "none" {
		t.Skip(crashEnv + "=none: the stage crash runs it")
	}
	err := exec.CommandContext(t.Context(), "strace", "-f", "-o", os.DevNull, "-e", "inject=exit_group:signal=KILL", "true").Run()
	switch {
	case killed(err):
	case os.Getenv(crashEnv) == "":
		t.Skipf("strace cannot kill programs here: %v", err)
	default:
		t.Fatalf("strace true: %v", err)
	}
}

// killed: strace ends as its program did.
func killed(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	return ok && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL //nolint:forcetypeassert // so it is on Unix
}

// killAt are the arguments of strace that kill a program at the nth call of a kind,
// and log that call and those of traced.
func killAt(log, traced, kind string, n int) []string {
	return []string{"-f", "-qq", "-o", log, "-e", "signal=none", "-e", "trace=" + traced, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", kind, n)}
}

// crashPoints are the places at which a run was cut.
type crashPoints struct {
	mu    sync.Mutex
	seen  map[string]bool // by spool, number of the call among all in the run, and kind
	kills int
}

func (p *crashPoints) add(point string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[point] = true
	p.kills++
}

type crashMatrix struct {
	*killFixture
	crashSpool
	name   string
	random *rand.Rand
	points *crashPoints
	cases  int
}

func (m *crashMatrix) some(t *testing.T, kinds []string) {
	for cuts := 0; cuts < 2; {
		if m.cut(t, kinds[m.random.IntN(len(kinds))], 1+m.random.IntN(4)) {
			cuts++
		}
	}
}

func (m *crashMatrix) all(t *testing.T, kinds []string) {
	for _, kind := range kinds {
		for n, cut := 1, true; cut; n++ {
			cut = m.cut(t, kind, n)
		}
	}
}

// cut runs ingest over three files, killed at the nth call of a kind, and judges
// what the next starts make of it. It is false if the run ended before.
func (m *crashMatrix) cut(t *testing.T, kind string, n int) bool {
	m.cases++
	dir := fmt.Sprintf("%s-%d", m.name, m.cases)
	want := m.fill(t, dir, 3)
	at := fmt.Sprintf("%s %d of %s", kind, n, dir)
	cut := m.strace(t, dir, kind, n)
	if cut && m.random.IntN(3) == 0 {
		again, k := changing[m.random.IntN(len(changing))], 1+m.random.IntN(5)
		if m.strace(t, dir, again, k) {
			at += fmt.Sprintf(", then %s %d", again, k)
		}
	}
	for range map[bool]int{true: 2, false: 1}[m.after == "keep"] { // the second finds nothing to do
		var out bytes.Buffer
		err := m.command(t.Context(), &out, m.ingest(dir)).Run()
		if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != exitFailedFiles) {
			t.Fatalf("%s: the next start: %v\n%s", at, err, &out)
		}
	}
	m.judge(t, at, dir, want)
	return cut
}

func (m *crashMatrix) ingest(dir string) []string {
	args := m.killFixture.ingest(dir, m.dialect)
	return append(args, "--file-ids", m.ids, "--on-success", m.after)
}

var isCall = regexp.MustCompile(`^\d+ +([a-z0-9]+)\(`)

// strace runs ingest until a thread makes the nth call of a kind, or to its end.
func (m *crashMatrix) strace(t *testing.T, dir, kind string, n int) (cut bool) {
	t.Helper()
	log := filepath.Join(m.dir, dir+".strace")
	args := append(killAt(log, strings.Join(changing, ",")+","+kind, kind, n), m.program)
	cmd := exec.CommandContext(t.Context(), "strace", append(args, m.ingest(dir)...)...)
	cmd.Dir = m.dir
	out, err := cmd.CombinedOutput()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if cut = killed(err); !cut && err != nil && (!ok || exit.ExitCode() != exitFailedFiles) {
		t.Fatalf("%s %d of %s: %v\n%s", kind, n, dir, err, out)
	}
	if !cut {
		return false
	}
	raw, err := os.ReadFile(log)
	must(t, err)
	calls := 0
	for line := range strings.Lines(string(raw)) {
		if isCall.MatchString(line) {
			calls++
		}
	}
	m.points.add(fmt.Sprintf("%s: call %d, %s", m.name, calls, kind))
	return true
}

// judge looks at the element's disk, at the spool and at the sources.
func (m *crashMatrix) judge(t *testing.T, at, dir string, want map[string]string) {
	t.Helper()
	copies := m.copies(t, m.dialect, dir+"-", want)
	st, err := spool.ReadStatus(t.Context(), spool.Config{Dir: filepath.Join(m.dir, dir)})
	must(t, err)
	ambiguous := map[string]bool{}
	for _, it := range st.Ambiguous {
		ambiguous[it.Name] = true
	}
	if len(st.Waiting)+len(st.Claimed)+len(st.Failed) > 0 || m.never && len(ambiguous) > 0 {
		t.Errorf("%s: %+v", at, st)
	}
	for name := range want {
		switch {
		case copies[name] > 1:
			t.Errorf("%s: %s is stored %d times", at, name, copies[name])
		case copies[name] == 0 && !ambiguous[name]:
			t.Errorf("%s: %s is not stored and nowhere else", at, name)
		}
		where := map[string]bool{"": exists(t, filepath.Join(m.dir, dir, name)), "done": exists(t, filepath.Join(m.dir, dir, spool.StateDir, "done", name))}
		if where[""] != (m.after == "keep") || where["done"] != (m.after == "move" && !ambiguous[name]) {
			t.Errorf("%s: ambiguous %t, waits %t, in done %t", at, ambiguous[name], where[""], where["done"])
		}
	}
	if len(ambiguous) == 0 {
		return
	}
	m.settle(t, dir, m.ingest(dir))
	copies = m.copies(t, m.dialect, dir+"-", want)
	for name := range want {
		if copies[name] != 1 {
			t.Errorf("%s: %s is stored %d times, after all was settled", at, name, copies[name])
		}
	}
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}
