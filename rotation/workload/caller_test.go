//go:build linux

package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/artstore/artstore-pki/internal/lograte"
	"github.com/artstore/artstore-pki/internal/unixsocket"
)

// A caller gets what the rules give to its user and group, and nothing else.
func TestAnotherUserGetsNothing(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	w := newWorld(t)
	w.add("storage")
	w.add("web")
	w.serve(
		Rule{User: "0", Identities: []string{"storage"}},
		Rule{User: "1001", Identities: []string{"web"}},
		Rule{Group: "2002", Identities: []string{"web", "storage"}},
		Rule{User: "1003", Group: "2003", Identities: []string{"storage"}},
	)
	helper := program(t)
	const web, storage = "spiffe://artstore.example/web web", "spiffe://artstore.example/storage storage"
	var wg sync.WaitGroup
	for _, c := range []struct {
		uid, gid uint32
		more     []uint32 // supplementary groups
		want     string
	}{
		{0, 0, nil, storage},
		{1001, 1001, nil, web},
		{1002, 2002, nil, web},
		{1003, 2003, nil, storage},
		{1003, 1003, nil, ""},
		{1004, 2003, nil, ""},
		{1004, 1004, []uint32{2002, 2003, 0}, ""},
		{stranger, stranger, nil, ""},
		{65534, 65534, nil, ""},
	} {
		wg.Go(func() {
			name := fmt.Sprintf("user %d, group %d", c.uid, c.gid)
			a := w.run(helper, &syscall.Credential{Uid: c.uid, Gid: c.gid, Groups: c.more})
			switch {
			case c.want != "" && (a.SVID != c.want || a.Bundles != 1):
				t.Errorf("%s: %+v, want %s", name, a, c.want)
			case c.want == "" && (a.SVID != "" || a.Bundles != 0 || a.Code != codes.PermissionDenied.String() || !strings.Contains(a.Err, "no rule gives an identity to "+name)):
				t.Errorf("%s: %+v, want nothing", name, a)
			}
		})
	}
	wg.Wait()
	if n := w.count(Denied); n != 2*5 {
		t.Errorf("%d calls denied, want 10", n)
	}
}

// One program of a user gets an identity, another file does not, also in place of the first one.
func TestExecutable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.add("storage")
	allowed, other := program(t), program(t)
	w.serve(Rule{User: numeral(os.Geteuid()), Executable: allowed, Identities: []string{"storage"}})
	if a := w.run(allowed, nil); a.SVID != "spiffe://artstore.example/storage storage" {
		t.Errorf("the program of the rule: %+v", a)
	}
	a := w.run(other, nil)
	if a.SVID != "" || a.Bundles != 0 || a.Code != codes.PermissionDenied.String() {
		t.Errorf("another program: %+v", a)
	}
	if logs := w.logs.Take(); !strings.Contains(logs, "does not run "+allowed) {
		t.Errorf("the log does not say why: %s", logs)
	}
	_, err := w.svids()() // this test
	wantStatus(t, "another process", err, codes.PermissionDenied, "no rule gives an identity")
	must(t, os.Rename(other, allowed))
	if a := w.run(allowed, nil); a.SVID == "" {
		t.Errorf("the program after an upgrade: %+v", a)
	}
}

// The process of a connection is judged by a handle that the kernel gives, not by its number alone.
func TestProcessHasEnded(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	must(t, err)
	path := filepath.Join(t.TempDir(), "s")
	ln, err := unixsocket.Listen(t.Context(), unixsocket.Socket{Path: path})
	must(t, err)
	defer func() { _ = ln.Close() }()
	c, err := new(net.Dialer).DialContext(t.Context(), "unix", path)
	must(t, err)
	defer func() { _ = c.Close() }()
	accepted, err := ln.Accept()
	must(t, err)
	defer func() { _ = accepted.Close() }()
	raw, err := accepted.(syscall.Conn).SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		pid := int32(os.Getpid())
		if err := processRuns(int(fd), pid, self); err != nil {
			t.Errorf("this process: %v", err)
		}
		for name, c := range map[string]struct {
			pid  int32
			path string
			want string
		}{
			"in another namespace":      {0, self, "another PID namespace"},
			"a file that is not there":  {pid, self + "x", "no such file"},
			"a process that is not":     {1<<31 - 1, self, "reading what process"},
			"a process with other code": {pid, "/proc/self/mem", "does not run"},
		} {
			if err := processRuns(int(fd), c.pid, c.path); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
		}
	}))
	if err := processRuns(-1, 1, self); !errors.Is(err, syscall.EBADF) {
		t.Errorf("without a connection: %v", err)
	}
}

// A process that has ended matches nothing, whoever has its number now.
func TestStillRuns(t *testing.T) {
	t.Parallel()
	handle := -1
	p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{PidFD: &handle}})
	must(t, err)
	if handle < 0 {
		t.Skip("this kernel has no handles of processes")
	}
	defer func() { _ = syscall.Close(handle) }()
	must(t, stillRuns(handle, int32(p.Pid))) // it is not reaped yet
	_, err = p.Wait()
	must(t, err)
	if err := stillRuns(handle, 1); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("a process that has ended: %v", err)
	}
	must(t, stillRuns(-1, 1)) // a kernel without handles
}

// The connection of a process that has ended does not get what its program would get.
func TestConnectionOutlivesItsProcess(t *testing.T) {
	t.Parallel()
	helper := program(t)
	path := filepath.Join(t.TempDir(), "s")
	ln, err := unixsocket.Listen(t.Context(), unixsocket.Socket{Path: path})
	must(t, err)
	defer func() { _ = ln.Close() }()
	cmd := exec.CommandContext(t.Context(), helper)
	cmd.Env = []string{helperEnv + "=" + connectOnly + path}
	must(t, cmd.Run())
	raw, err := ln.Accept() // it waited in the kernel's queue
	must(t, err)
	peer, err := unixsocket.PeerOf(raw)
	must(t, err)
	if int(peer.PID) != cmd.Process.Pid {
		t.Errorf("process %d, want %d", peer.PID, cmd.Process.Pid)
	}
	c := &conn{Conn: raw, listener: &listener{}, Peer: peer}
	defer func() { _ = c.Close() }()
	if err := c.runs(helper); err == nil {
		t.Error("a process that has ended runs the file of a rule")
	}
	must(t, c.runs("")) // a rule without a file is for the user, whatever its processes do
}

// Whatever is wrong with a configuration is an error at once, and the listener is closed.
func TestServeRefuses(t *testing.T) {
	t.Parallel()
	sound := Config{Identities: &Identities{}, Rules: rulesOf(t, ownRule("a"))}
	for name, c := range map[string]struct {
		edit    func(*Config)
		network string
		want    string
	}{
		"no identities": {func(c *Config) { c.Identities = nil }, "unix", "Identities is missing"},
		"no rules":      {func(c *Config) { c.Rules = nil }, "unix", "Rules is missing"},
		"TCP":           {func(*Config) {}, "tcp", `the listener is for "tcp"`},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := sound
			c.edit(&cfg)
			addr := filepath.Join(t.TempDir(), "s")
			if c.network == "tcp" {
				addr = "127.0.0.1:0"
			}
			ln, err := new(net.ListenConfig).Listen(t.Context(), c.network, addr)
			must(t, err)
			if err := Serve(t.Context(), ln, cfg); err == nil || !strings.Contains(err.Error(), "serving the Workload API: ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("the listener is open: %v", err)
			}
		})
	}
}

// A listener that fails ends the server.
func TestAcceptFails(t *testing.T) {
	t.Parallel()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(t.TempDir(), "s"))
	must(t, err)
	must(t, ln.Close())
	if err := Serve(t.Context(), ln, Config{Identities: &Identities{}, Rules: rulesOf(t, ownRule("a"))}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("serving a closed listener: %v", err)
	}
}

// The credentials are for this server only.
func TestCredentials(t *testing.T) {
	t.Parallel()
	c := peerCredentials{new(lograte.Gate)}
	here, there := net.Pipe()
	if _, _, err := c.ServerHandshake(here); err == nil || !strings.Contains(err.Error(), "it is a *net.pipe") {
		t.Errorf("a connection of another listener: %v", err)
	}
	if _, _, err := c.ClientHandshake(t.Context(), "", there); err == nil || !strings.Contains(err.Error(), "for servers") {
		t.Errorf("as a client: %v", err)
	}
	for _, end := range []net.Conn{here, there} {
		if _, err := end.Write(nil); err == nil {
			t.Error("a connection that was refused is open")
		}
	}
	if c.Info().SecurityProtocol != (authInfo{}).AuthType() || c.Clone() != c || c.OverrideServerName("x") != nil {
		t.Error("the credentials describe others")
	}
	if callerOf(t.Context()) != nil {
		t.Error("a call without a connection has a caller")
	}
}

// A connection of which the kernel says nothing is closed, and the next one is served.
func TestConnectionWithoutPeer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.add("storage")
	ln, err := Listen(t.Context(), Socket{Path: w.path})
	must(t, err)
	here, there := net.Pipe()
	odd := &oddListener{Listener: ln, first: there}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, odd, Config{Identities: &w.ids, Rules: rulesOf(t, ownRule("storage")), Logger: slog.New(slog.NewTextHandler(w.logs, nil))})
	}()
	if _, err := here.Read(make([]byte, 1)); err == nil {
		t.Error("a connection without a peer was answered")
	}
	if _, err := w.svids()(); err != nil {
		t.Error(err)
	}
	cancel()
	must(t, <-ended)
	if !strings.Contains(w.logs.String(), "connection without a peer closed") {
		t.Errorf("log: %s", w.logs.String())
	}
}

// oddListener accepts one connection that is no Unix socket, and then those of a Unix socket.
type oddListener struct {
	net.Listener
	first net.Conn
}

func (l *oddListener) Accept() (net.Conn, error) {
	if c := l.first; c != nil {
		l.first = nil
		return c, nil
	}
	return l.Listener.Accept()
}

// A panic in one call ends that call only.
func TestPanicEndsOneCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.add("storage")
	var once sync.Once
	w.onOutcome = func(outcome string) {
		once.Do(func() { panic("no metrics for " + outcome) })
	}
	w.serve(ownRule("storage"))
	next := w.svids()
	_, err := next() // Observer is called after the message
	must(t, err)
	_, err = next()
	wantStatus(t, "the call whose Observer panics", err, codes.Internal, "a fault of the server")
	if _, err := w.svids()(); err != nil {
		t.Errorf("the next call: %v", err)
	}
	if logs := w.logs.String(); !strings.Contains(logs, "no metrics for sent") || !strings.Contains(logs, "stack=") {
		t.Errorf("log: %s", logs)
	}
}
