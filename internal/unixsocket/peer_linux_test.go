package unixsocket

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestPeerUID expects the user of the process that connected: this one, and, where the test
// may start it, a process of another user.
func TestPeerUID(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "s") //nolint:usetesting // the directory of t is closed to other users
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	path := filepath.Join(dir, "s")
	ln, err := Listen(t.Context(), Socket{Path: path})
	must(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	users := []int{os.Geteuid()}
	if os.Geteuid() == 0 {
		users = append(users, 12345)
		must(t, os.Chmod(path, 0o666))
	}
	for _, uid := range users {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=TestConnectAndWait")
		cmd.Env = append(os.Environ(), envConnect+"="+path)
		if uid != os.Geteuid() {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		}
		var out bytes.Buffer // not ours: go test would take its line of coverage for that of this package
		cmd.Stdout, cmd.Stderr = &out, &out
		stdin, err := cmd.StdinPipe()
		must(t, err)
		must(t, cmd.Start())
		c, err := ln.Accept()
		must(t, err)
		got, err := PeerUID(c)
		must(t, err)
		if got != uid {
			t.Errorf("user %d connected, and the socket says %d", uid, got)
		}
		must(t, c.Close())
		must(t, stdin.Close())
		if err := cmd.Wait(); err != nil {
			t.Errorf("the other process: %v\n%s", err, out.String())
		}
	}
	here, there := net.Pipe()
	defer func() { _, _ = here.Close(), there.Close() }()
	if uid, err := PeerUID(here); err == nil {
		t.Errorf("a connection that is none of a socket is of user %d", uid)
	}
}

const envConnect = "UNIXSOCKET_TEST_CONNECT"

// TestConnectAndWait is the other process of TestPeerUID. It connects, and ends with its
// standard input.
func TestConnectAndWait(t *testing.T) {
	path := os.Getenv(envConnect)
	if path == "" {
		return // it is not the other process
	}
	c, err := new(net.Dialer).DialContext(t.Context(), "unix", path)
	must(t, err)
	_, err = io.Copy(io.Discard, os.Stdin)
	must(t, err)
	must(t, c.Close())
}
