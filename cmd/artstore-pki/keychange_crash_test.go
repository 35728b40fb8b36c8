//go:build linux

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestKeyChangeCrashes kills password change and enrolment-key rotate with SIGKILL at renames and at
// writes of the record, one after the other. After each kill every key opens with what
// secrets/password has, a token can be made, the log verifies, and the same command ends the change.
//
// strace counts the calls of each thread for itself, so a run has fewer cuts than renames.
// TestPasswordCrashes and TestEnrolmentKeyCrashes have the state before each of them.
func TestKeyChangeCrashes(t *testing.T) {
	afterKills(t)
	needTracing(t)
	t.Parallel()
	for _, tc := range []struct {
		name      string
		init, run []string
		kinds     map[string]int // calls at which to kill, and the least number of cuts by each
	}{
		{"password", []string{"init"}, []string{"password", "change", "--new-password-file", "new"}, map[string]int{"renameat": 3}},
		{"enrolment-key", []string{"init", "--plain-keys"}, []string{"enrolment-key", "rotate", "--now"}, map[string]int{"renameat": 2, "pwrite64": 3}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := &killFixture{dir: t.TempDir()}
			w.program = selfAs(t, w.dir)
			must(t, os.WriteFile(filepath.Join(w.dir, "new"), []byte("correct horse battery staple\n"), 0o600))
			w.ok(t, append(tc.init, "--dir", "whole")...)
			for kind, least := range tc.kinds {
				cuts := 0
				for w.keyChangeCut(t, append(tc.run, "--dir", "ca"), kind, cuts+1) {
					cuts++
				}
				t.Logf("%d cuts at %s", cuts, kind)
				if cuts < least {
					t.Errorf("fewer than %d", least)
				}
			}
		})
	}
}

// keyChangeCut runs a change in a copy of the directory, killed at the nth call of a kind, and runs
// it again. It is false if the first run came to its end.
func (w *killFixture) keyChangeCut(t *testing.T, change []string, kind string, n int) bool {
	t.Helper()
	dir := filepath.Join(w.dir, "ca")
	must(t, os.RemoveAll(dir))
	must(t, os.CopyFS(dir, os.DirFS(filepath.Join(w.dir, "whole"))))
	must(t, os.Chmod(filepath.Join(dir, "secrets"), 0o700)) // it is a directory
	cmd := exec.CommandContext(t.Context(), "strace", append(append(killAt(os.DevNull, kind, kind, n), w.program), change...)...)
	cmd.Dir = w.dir
	out, err := cmd.CombinedOutput()
	cut := killed(err)
	if !cut && err != nil {
		t.Fatalf("%s %d: %v\n%s", kind, n, err, out)
	}
	w.sound(t)
	if cut {
		w.ok(t, change...)
		w.sound(t)
	}
	return cut
}

// sound wants each key of the directory to open, the log to verify, and a token to be made. doctor
// says of a copy that its modes are open, which is no fault of the change.
func (w *killFixture) sound(t *testing.T) {
	t.Helper()
	var out bytes.Buffer
	err := w.command(t.Context(), &out, []string{"doctor", "--dir", "ca", "--log"}).Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "error") && !strings.Contains(line, "permissions") {
			t.Errorf("doctor: %s", line)
		}
	}
	if !strings.Contains(out.String(), "the enrolment key of enrolment fits") {
		t.Errorf("doctor did not try the enrolment key:\n%s", &out)
	}
	w.ok(t, "token", "ingester", "--dir", "ca", "--out", "token")
}
