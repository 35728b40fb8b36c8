//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/internal/stepapi"
)

// trustSteps lead a root through all stages, and one intermediate to its revocation. Each one
// begins where the one before has ended.
var trustSteps = [][]string{
	{"root", "add"},
	{"root", "rollback"},
	{"root", "add"},
	{"root", "try", "--service", "ingester"},
	{"root", "rollback"},
	{"root", "activate"},
	{"root", "rollback"},
	{"root", "activate"},
	{"root", "remove", "OLD"},
	{"intermediate", "rotate"},
	{"intermediate", "revoke", "RETIRED"},
}

// TestTrustCrashes kills each step of a change of trust at each write: of a file, of the
// database, and at each flush; an ordinary run takes a part of these points. The next start continues with the trust of before or after the
// step, the log verifies, and the step, taken again if it was not, leads on.
func TestTrustCrashes(t *testing.T) {
	afterKills(t)
	needTracing(t)
	t.Parallel()
	stride := 7 // of the points that an ordinary run takes
	if os.Getenv(crashEnv) != "" {
		stride = 1
	}
	w := &trustCrash{killFixture: &killFixture{dir: t.TempDir()}}
	w.program = selfAs(t, w.dir)
	w.ok(t, "init", "--plain-keys", "--dir", "ca")
	w.ok(t, "root", "status", "--dir", "ca") // the first start puts the trust into the record
	for i, step := range trustSteps {
		if slices.Equal(step, []string{"intermediate", "rotate"}) { // without a certificate the old one would not stay
			serve := w.start(t, "serve", "--dir", "ca", "--listen", "127.0.0.1:0", "--ready-file", "url")
			w.url(t, "url")
			serve.kill()
		}
		for _, kind := range []string{"renameat", "pwrite64", "fsync"} {
			for n, cut := 1, true; cut; n += stride {
				cut = w.cut(t, w.resolved(t, step), kind, n)
			}
		}
		w.ok(t, append(w.resolved(t, step), "--dir", "ca")...)
		if got := w.status(t, "ca").Version; got != int64(i+2) {
			t.Fatalf("%v: version %d", step, got)
		}
	}
	if w.cuts < 200/stride {
		t.Errorf("only %d cuts", w.cuts)
	}
	t.Logf("%d cuts of %d steps: %d before their commit, %d after it", w.cuts, len(trustSteps), w.cuts-w.after, w.after)
}

type trustCrash struct {
	*killFixture
	cuts, after int // kills, and those of them after the commit
}

// cut takes a step in a copy of the directory, killed at the nth call of a kind, and looks at
// what is left. It is false if the step came to its end.
func (w *trustCrash) cut(t *testing.T, step []string, kind string, n int) bool {
	t.Helper()
	before := w.status(t, "ca")
	dir := filepath.Join(w.dir, "copy")
	must(t, os.RemoveAll(dir))
	must(t, os.CopyFS(dir, os.DirFS(filepath.Join(w.dir, "ca"))))
	must(t, chmodLike(filepath.Join(w.dir, "ca"), dir))
	args := slices.Concat(killAt(os.DevNull, kind, kind, n), []string{w.program}, step, []string{"--dir", "copy"})
	cmd := exec.CommandContext(t.Context(), "strace", args...)
	cmd.Dir = w.dir
	out, err := cmd.CombinedOutput()
	if !killed(err) {
		if err != nil {
			t.Fatalf("%v: %s %d: %v\n%s", step, kind, n, err, out)
		}
		return false
	}
	w.cuts++
	w.ok(t, "log", "verify", "--dir", "copy") // before anything is mended
	after := w.status(t, "copy")
	switch after.Version {
	case before.Version:
		w.ok(t, append(slices.Clone(step), "--dir", "copy")...)
	case before.Version + 1:
		w.after++
	default:
		t.Errorf("%v: %s %d: version %d after %d", step, kind, n, after.Version, before.Version)
	}
	if now := w.status(t, "copy"); now.Version != before.Version+1 {
		t.Errorf("%v: %s %d: the step does not lead on: version %d after %d", step, kind, n, now.Version, before.Version)
	}
	w.ok(t, "log", "verify", "--dir", "copy")
	w.doctor(t)
	return true
}

// doctor wants no error of the copy; that its keys are plain is a warning.
func (w *trustCrash) doctor(t *testing.T) {
	t.Helper()
	var out bytes.Buffer
	err := w.command(t.Context(), &out, []string{"doctor", "--dir", "copy"}).Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 3) || strings.Contains("\n"+out.String(), "\nerror") {
		t.Errorf("doctor: %v\n%s", err, &out)
	}
}

func (w *trustCrash) status(t *testing.T, dir string) (s stepapi.TrustStatus) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), w.program, "root", "status", "--dir", dir, "-o", "json")
	cmd.Dir = w.dir
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	if err != nil {
		t.Fatalf("root status: %v\n%s", err, out)
	}
	return s
}

// resolved puts the fingerprints of today into a step.
func (w *trustCrash) resolved(t *testing.T, step []string) []string {
	t.Helper()
	step = slices.Clone(step)
	last := &step[len(step)-1]
	if *last == "OLD" {
		for _, r := range w.status(t, "ca").Roots {
			if r.Stage == stepapi.StageOld {
				*last = r.Fingerprint
			}
		}
	}
	if *last == "RETIRED" {
		*last = w.status(t, "ca").Intermediates[1].Fingerprint
	}
	return step
}

// chmodLike gives the files of a copy the modes of the original, which os.CopyFS does not.
func chmodLike(from, to string) error {
	return filepath.WalkDir(from, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		return os.Chmod(filepath.Join(to, rel), info.Mode().Perm())
	})
}
