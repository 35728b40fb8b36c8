//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestRenewCrashes kills a renewal with a command at each system call that changes the disk; an
// ordinary run takes a part of them. The next start with --if-due then runs the command if and
// only if it has not succeeded for the files in the directory: what the command has loaded is
// what lies there.
func TestRenewCrashes(t *testing.T) {
	afterKills(t)
	needTracing(t)
	t.Parallel()
	w := renewingFixture(t, "")
	w.ok(t, "issue", "--ca-url", w.url(t, "ca.url"), "--token-file", "token", "--out", "whole")
	cutRenewals{least: 12, misses: 1, cut: w.renewCut}.run(t, "renameat", "symlinkat", "unlinkat", "mkdirat", "fsync", "clone3", "clone")
}

// cutRenewals kills renewals at one point after the other.
type cutRenewals struct {
	least  int // cuts, if all points are taken
	misses int // in a row, after which a kind of call has no more points
	// cut runs a renewal that is killed at the nth call of a kind. It says whether it was, and
	// whether the files were new then.
	cut func(t *testing.T, kind string, n int) (cut, renewed bool)
}

// run takes every fourth point, or all of them if they were asked for. Which thread makes a call is
// chance, and strace counts the calls of each: so it takes more until a cut was after the new files.
func (c cutRenewals) run(t *testing.T, kinds ...string) {
	t.Helper()
	stride := 4
	if os.Getenv(crashEnv) != "" {
		stride = 1
	}
	cuts, changed := 0, 0
	for first := 1; first <= stride && changed == 0; first++ {
		for _, kind := range kinds {
			for n, missed := first, 0; missed < c.misses; n += stride {
				cut, renewed := c.cut(t, kind, n)
				if missed++; cut {
					cuts, missed = cuts+1, 0
				}
				if cut && renewed {
					changed++
				}
			}
		}
	}
	t.Logf("%d cuts, %d of them after the new files", cuts, changed)
	if cuts < c.least/stride || changed == 0 {
		t.Error("too few")
	}
}

// renewingFixture starts an authority that lets one certificate of ingester renew many times, since
// each cut renews the same one. more are lines of YAML in the profile. There is a token.
func renewingFixture(t *testing.T, more string) *killFixture {
	t.Helper()
	w := &killFixture{dir: t.TempDir()}
	w.program = selfAs(t, w.dir)
	w.ok(t, "init", "--dir", "ca", "--plain-keys", "--dns", "localhost", "--dns", "127.0.0.1")
	pki := filepath.Join(w.dir, "ca", "pki.yaml")
	config, err := os.ReadFile(pki)
	must(t, err)
	config = bytes.Replace(config, []byte(`  "ingester":`), []byte("  \"ingester\":\n    max_live_per_lineage: 1000"+more), 1)
	must(t, os.WriteFile(pki, config, 0o600))
	w.ok(t, "token", "--dir", "ca", "--out", "token", "ingester")
	w.start(t, "serve", "--dir", "ca", "--listen", "127.0.0.1:0", "--ready-file", "ca.url")
	return w
}

// renewCut renews a copy of the directory, killed at the nth call of a kind, and then twice if
// that is due. It says whether the run was cut, and whether the files were new then.
func (w *killFixture) renewCut(t *testing.T, kind string, n int) (cut, renewed bool) {
	t.Helper()
	at := fmt.Sprintf("%s %d", kind, n)
	for _, name := range []string{"id", "loaded", "runs"} {
		must(t, os.RemoveAll(filepath.Join(w.dir, name)))
	}
	must(t, os.CopyFS(filepath.Join(w.dir, "id"), os.DirFS(filepath.Join(w.dir, "whole"))))
	must(t, os.Chmod(filepath.Join(w.dir, "id"), 0o700))
	load := []string{"id", "--", "sh", "-c", `cat "$ROTATED_DIR/tls.crt" >loaded; echo >>runs`}
	old := w.content(t, "id/tls.crt")
	must(t, os.WriteFile(filepath.Join(w.dir, "loaded"), []byte(old), 0o600))

	cmd := exec.CommandContext(t.Context(), "strace", append(append(killAt(os.DevNull, kind, kind, n), w.program, "renew"), load...)...)
	cmd.Dir = w.dir
	out, err := cmd.CombinedOutput()
	if cut = killed(err); !cut && err != nil {
		t.Fatalf("%s: %v\n%s", at, err, out)
	}
	now := w.content(t, "id/tls.crt")
	renewed = now != old
	w.ok(t, append([]string{"renew", "--if-due"}, load...)...)
	w.ok(t, append([]string{"renew", "--if-due"}, load...)...)
	if got := w.content(t, "id/tls.crt"); got != now {
		t.Errorf("%s: renewed again, and it was not due", at)
	}
	if w.content(t, "loaded") != now {
		t.Errorf("%s: the command has not run for the files in the directory", at)
	}
	least, most := 0, 0
	if renewed {
		least, most = 1, 2 // it may have been killed behind the command
	}
	if runs := len(w.content(t, "runs")); runs < least || runs > most {
		t.Errorf("%s: the command has run %d times; the files are new: %t", at, runs, renewed)
	}
	return cut, renewed
}

// content returns a file below the directory, "" if it is not there.
func (w *killFixture) content(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(data)
}
