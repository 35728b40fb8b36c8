package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestInitSurvivesKill kills init at instants spread over its run. Each time there is a whole
// authority, or the next init succeeds.
func TestInitSurvivesKill(t *testing.T) {
	afterKills(t)
	t.Parallel()
	for _, there := range []bool{false, true} {
		w := &killFixture{dir: t.TempDir()}
		w.program = selfAs(t, w.dir)
		start := time.Now()
		w.ok(t, "init", "--plain-keys", "--dir", "measured")
		whole := time.Since(start)
		// The machine may be busier or less busy than when init was measured, so the
		// length is corrected on the way, and rounds are added until some of them hit.
		killed, finished, rounds := 0, 0, 0
		for ; rounds < 16 || (killed == 0 || finished == rounds) && rounds < 160; rounds++ {
			dir := filepath.Join(w.dir, "ca")
			if there {
				must(t, os.Mkdir(dir, 0o700))
			}
			init := []string{"init", "--plain-keys", "--dir", "ca", "--offline-root", "root.key"}
			var out bytes.Buffer
			cmd := w.command(t.Context(), &out, init)
			must(t, cmd.Start())
			time.AfterFunc(whole*time.Duration(rounds%16+4)/16, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
			if exit, ok := errors.AsType[*exec.ExitError](cmd.Wait()); ok && exit.ExitCode() == -1 {
				killed++
			} else if rounds%16 < 12 { // done before the time that it was expected to take
				whole = whole * 3 / 4
			}
			if _, err := os.Stat(filepath.Join(dir, "pki.yaml")); err == nil {
				finished++
			} else {
				w.ok(t, init...)
			}
			w.ok(t, "token", "ingester", "--dir", "ca")
			must(t, errors.Join(os.RemoveAll(dir), os.RemoveAll(filepath.Join(w.dir, "root.key"))))
		}
		t.Logf("directory there before: %v; killed %d times in %d rounds, done %d times", there, killed, rounds, finished)
		if killed == 0 || finished == rounds {
			t.Errorf("killed %d times in %d rounds, done %d times: the test shows nothing", killed, rounds, finished)
		}
	}
}
