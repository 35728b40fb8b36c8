//go:build linux

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestInitCrashes kills init at each rename and removal, in an empty directory and in an absent one.
// TestInitSurvivesKill rarely meets the moment at which the parts of an authority are moved to
// their place one after the other.
func TestInitCrashes(t *testing.T) {
	afterKills(t)
	needTracing(t)
	t.Parallel()
	cuts := 0
	for _, there := range []bool{false, true} {
		for _, kind := range []string{"renameat", "unlinkat"} {
			w := &killFixture{dir: t.TempDir()}
			w.program = selfAs(t, w.dir)
			for n, cut := 1, true; cut; n++ {
				if cut = w.initCut(t, there, kind, n); cut {
					cuts++
				}
			}
		}
	}
	for _, kind := range []string{"renameat", "unlinkat"} {
		w := &killFixture{dir: t.TempDir()}
		w.program = selfAs(t, w.dir)
		for n, cut := 1, true; cut; n++ {
			if cut = w.requestCut(t, kind, n); cut {
				cuts++
			}
		}
	}
	if cuts < 10 {
		t.Errorf("only %d cuts", cuts)
	}
	t.Logf("%d cuts", cuts)
}

// initCut makes an authority, killed at the nth call of a kind, and makes it again.
// It is false if the first run came to its end.
func (w *killFixture) initCut(t *testing.T, there bool, kind string, n int) bool {
	t.Helper()
	dir := filepath.Join(w.dir, "ca")
	if there {
		must(t, os.Mkdir(dir, 0o700))
	}
	init := []string{"init", "--plain-keys", "--dir", "ca", "--offline-root", "root.key"}
	args := append(killAt(os.DevNull, kind, kind, n), w.program)
	cmd := exec.CommandContext(t.Context(), "strace", append(args, init...)...)
	cmd.Dir = w.dir
	out, err := cmd.CombinedOutput()
	cut := killed(err)
	if !cut && err != nil {
		t.Fatalf("%s %d: %v\n%s", kind, n, err, out)
	}
	if !exists(t, filepath.Join(dir, "pki.yaml")) {
		w.ok(t, init...)
	}
	w.ok(t, "token", "ingester", "--dir", "ca")
	must(t, errors.Join(os.RemoveAll(dir), os.RemoveAll(filepath.Join(w.dir, "root.key"))))
	return cut
}

// requestCut requests an intermediate in an empty directory, killed at the nth call of a kind, and
// requests it again. It is false if the first run came to its end.
func (w *killFixture) requestCut(t *testing.T, kind string, n int) bool {
	t.Helper()
	must(t, os.Mkdir(filepath.Join(w.dir, "ca"), 0o700))
	init := []string{"init", "--plain-keys", "--dir", "ca", "--intermediate-csr", "our.csr"}
	cmd := exec.CommandContext(t.Context(), "strace", append(append(killAt(os.DevNull, kind, kind, n), w.program), init...)...)
	cmd.Dir = w.dir
	out, err := cmd.CombinedOutput()
	cut := killed(err)
	if !cut && err != nil {
		t.Fatalf("%s %d: %v\n%s", kind, n, err, out)
	}
	w.ok(t, init...)
	if exists(t, filepath.Join(w.dir, "ca", "pki.yaml")) || !exists(t, filepath.Join(w.dir, "ca", "request", "intermediate.csr")) {
		t.Errorf("%s %d: the directory does not wait for the certificate", kind, n)
	}
	must(t, errors.Join(os.RemoveAll(filepath.Join(w.dir, "ca")), os.RemoveAll(filepath.Join(w.dir, "our.csr"))))
	return cut
}
