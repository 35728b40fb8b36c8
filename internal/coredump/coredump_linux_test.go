package coredump_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/artstore/artstore-pki/internal/coredump"
)

// crashEnv makes the test binary a process that crashes: "dumpable" as it is,
// "disabled" after Disable.
const crashEnv = "ARTSTORE_CRASH"

func TestMain(m *testing.M) {
	if how := os.Getenv(crashEnv); how != "" {
		crash(how)
	}
	m.Run()
}

// crash ends the process by SIGABRT as the kernel does it for a program without a handler.
func crash(how string) {
	if how == "disabled" {
		if err := coredump.Disable(); err != nil {
			panic(err)
		}
		if n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); n != 0 || err != nil {
			panic("still dumpable")
		}
		if limits, err := os.ReadFile("/proc/self/limits"); err != nil || !strings.Contains(string(limits), "Max core file size        0                    0 ") {
			panic("the limit: " + string(limits))
		}
	}
	debug.SetTraceback("crash") // the runtime raises SIGABRT without a handler at the end
	panic("on purpose")
}

// A process that crashes is dumped unless Disable was called. The child that did
// not call it shows that the test would see a dump.
func TestNoCoreDump(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dumped := func(how string) (core bool, files []string) {
		t.Helper()
		dir := t.TempDir()
		// The soft limit is often 0 already; what the hard one allows is asked for.
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `ulimit -S -c "$(ulimit -H -c)"; exec "$0"`, self)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), crashEnv+"="+how)
		out, err := cmd.CombinedOutput()
		status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if err == nil || !ok || !status.Signaled() || !strings.Contains(string(out), "on purpose") {
			t.Fatalf("%s: the child did not crash: %v\n%s", how, err, out)
		}
		files, _ = filepath.Glob(filepath.Join(dir, "*core*"))
		return status.CoreDump(), files
	}
	if core, files := dumped("disabled"); core || len(files) > 0 {
		t.Errorf("a core dump was made: %q", files)
	}
	if core, _ := dumped("dumpable"); !core {
		t.Log("this system makes no core dumps at all; the attributes were checked all the same")
	}
}
