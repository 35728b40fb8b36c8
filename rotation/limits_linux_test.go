package rotation_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
)

// TestUnderLimits runs parts of itself in child processes with low limits of the kernel,
// for the user namespace or for the process of the child.
func TestUnderLimits(t *testing.T) {
	switch os.Getenv("ROTATION_LIMIT") {
	case "max_inotify_instances":
		limitedNotify(t, "max_inotify_instances", "too many open files")
		return
	case "max_inotify_watches":
		limitedNotify(t, "max_inotify_watches", "no space left on device")
		return
	case "nofile":
		limitedFiles(t)
		return
	}
	for _, limit := range []string{"max_inotify_instances", "max_inotify_watches", "nofile"} {
		t.Run(limit, func(t *testing.T) {
			t.Parallel()
			self, err := os.Executable()
			must(t, err)
			cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestUnderLimits$", "-test.v", "-test.timeout=1m")
			cmd.Env = append(os.Environ(), "ROTATION_LIMIT="+limit)
			if limit != "nofile" {
				cmd.SysProcAttr = &syscall.SysProcAttr{
					Cloneflags:  syscall.CLONE_NEWUSER,
					UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
					GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
				}
			}
			out, err := cmd.CombinedOutput()
			if cmd.Process == nil || strings.Contains(string(out), "--- SKIP") {
				t.Skipf("no namespace of our own: %v\n%s", err, out)
			}
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// limitedNotify expects that the set is polled without inotify, and that notifications
// are used again when the limit is raised.
func limitedNotify(t *testing.T, limit, want string) {
	knob := filepath.Join("/proc/sys/user", limit)
	if err := os.WriteFile(knob, []byte("0"), 0); err != nil {
		t.Skip(err)
	}
	ca := newCA(t, "ca")
	dir := t.TempDir()
	f := write(t, dir, ca.leaf(t, "svc", nil))
	f.Poll = 50 * time.Millisecond
	id := open(t, files.Source(f), 0)
	if st := id.Status(); st.WatchMode != "poll" || !strings.Contains(st.WatchError, want) {
		t.Errorf("mode %q: %s", st.WatchMode, st.WatchError)
	}
	m := ca.leaf(t, "svc", nil)
	write(t, dir, m)
	awaitSerial(t, id, m)
	must(t, os.WriteFile(knob, []byte("100"), 0))
	waitFor(t, "notification", func() bool { return id.Status().WatchMode == "notify+poll" })
	if e := id.Status().WatchError; e != "" {
		t.Errorf("still said: %s", e)
	}
}

// limitedFiles expects that a process without free file descriptors keeps its last good
// set, reports why, and reads the new set when there are some again.
func limitedFiles(t *testing.T) {
	ca := newCA(t, "ca")
	dir := filepath.Join(t.TempDir(), "tls")
	id := follow(t, write(t, dir, ca.leaf(t, "svc", nil)))
	good, m := serial(id), ca.leaf(t, "svc", nil)
	write(t, dir+".fresh", m)
	var was syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was))
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: was.Max}))
	must(t, os.Rename(dir, dir+".old")) // needs none
	must(t, os.Rename(dir+".fresh", dir))
	waitFor(t, "the failure", func() bool { return strings.Contains(id.Status().LastError, "too many open files") })
	if serial(id) != good {
		t.Error("the last good set is not kept")
	}
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was))
	awaitSerial(t, id, m)
}

// TestFilesLeaveNothing expects that no goroutine and no file descriptor of a watch is
// left after Close, at whatever moment Close is called.
func TestFilesLeaveNothing(t *testing.T) {
	ca := newCA(t, "ca")
	dir := t.TempDir()
	write(t, dir, ca.leaf(t, "svc", nil))
	source := func() rotation.Source {
		return rotation.Merge(files.Source(files.Set{Dir: dir, Cert: "tls.crt", Key: "tls.key"}), files.Source(files.Set{Dir: dir, CA: "ca.crt"}))
	}
	_ = open(t, source(), 0).Close() // the runtime opens its poller once
	count := func() (goroutines, files int) {
		open, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return runtime.NumGoroutine(), len(open)
	}
	goroutines, files := count()
	for range 20 {
		id := open(t, source(), 0)
		write(t, dir, ca.leaf(t, "svc", nil))
		_ = id.Close()
	}
	waitFor(t, "the end of all goroutines", func() bool { n, _ := count(); return n <= goroutines })
	if _, n := count(); n > files {
		t.Errorf("%d open files, %d before", n, files)
	}
}
