package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/logtest"
)

// The kernel makes no core dump of a command that holds keys.
func TestServeMakesNoCoreDump(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	must(t, err)
	w := &killFixture{dir: t.TempDir()}
	w.program = filepath.Join(w.dir, "artstore-pki")
	must(t, os.Symlink(self, w.program))
	w.ok(t, "init", "--plain-keys", "--dir", "ca")
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `ulimit -S -c "$(ulimit -H -c)"; exec "$0" serve --dir ca --listen 127.0.0.1:0 --ready-file url`, w.program)
	var out logtest.Buffer // read while the program writes
	cmd.Dir, cmd.Stderr, cmd.Env = w.dir, &out, append(os.Environ(), "GOTRACEBACK=crash")
	must(t, cmd.Start())
	for deadline := time.Now().Add(scriptWait); ; time.Sleep(10 * time.Millisecond) { // a file tells when it is ready: there is nothing to wait on
		if _, err := os.Stat(filepath.Join(w.dir, "url")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("serve did not get ready: %s", out.String())
		}
	}
	limits, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/limits")
	must(t, err)
	if !strings.Contains(string(limits), "Max core file size        0                    0 ") {
		t.Errorf("the limit of core files:\n%s", limits)
	}
	must(t, cmd.Process.Signal(syscall.SIGABRT)) // which the runtime answers with all stacks, and then a crash
	_ = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.CoreDump() {
		t.Errorf("%v: dumped %v", cmd.ProcessState, status.CoreDump())
	}
	if files, _ := filepath.Glob(filepath.Join(w.dir, "*core*")); len(files) > 0 {
		t.Errorf("a core dump was made: %q", files)
	}
}
