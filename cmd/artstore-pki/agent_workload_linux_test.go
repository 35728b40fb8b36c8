//go:build !agent

package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/rotation/agent"
)

// strangerUID is a user that no rule of the test names.
const strangerUID = 23456

// TestAgentWorkloadAPI: the client of go-spiffe gets its SVID from a running agent, ten renewals and another
// trust bundle, all over one connection. Another user gets nothing, and a reload gives him something.
func TestAgentWorkloadAPI(t *testing.T) {
	long(t, "the agent learns of another trust bundle at its first refresh, which is spread over half a minute")
	t.Parallel()
	w := newAgentWorkload(t)
	var made atomic.Int64
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	src, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr("unix://"+w.socket), workloadapi.WithDialOptions(
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			made.Add(1)
			return new(net.Dialer).DialContext(ctx, "unix", w.socket)
		}))))
	must(t, err)
	defer func() { _ = src.Close() }()
	for n := range 11 {
		if n > 0 {
			w.ok(t, "agent", "renew", "--socket", "s", "web")
		}
		want := w.identity(t, "web").Serial
		w.until(t, fmt.Sprintf("renewal %d", n), func() bool {
			svid, err := src.GetX509SVID()
			must(t, err)
			if svid.ID.String() != "spiffe://artstore.example/web" || svid.Hint != "web" {
				t.Errorf("SVID %s with hint %q", svid.ID, svid.Hint)
			}
			_, _, err = x509svid.Verify(svid.Certificates, src)
			must(t, err)
			return certs.Serial(svid.Certificates[0]) == want
		})
	}
	domain := spiffeid.RequireTrustDomainFromString("artstore.example")
	roots := func() []*x509.Certificate {
		b, err := src.GetX509BundleForTrustDomain(domain)
		must(t, err)
		return b.X509Authorities()
	}
	if n := len(roots()); n != 1 {
		t.Errorf("%d roots", n)
	}
	w.ok(t, "root", "add", "--dir", "ca")
	w.until(t, "the bundle with another root", func() bool { return len(roots()) == 2 })
	if n := made.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	w.anotherUser(t)
	must(t, w.agent.cmd.Process.Signal(syscall.SIGTERM))
	if err := w.agent.cmd.Wait(); err != nil {
		t.Errorf("the agent ended with %v:\n%s", err, w.agent.out)
	}
	if _, err := os.Lstat(w.socket); err == nil {
		t.Error("the socket is left")
	}
}

// agentWorkload is an authority and an agent that serves the Workload API.
type agentWorkload struct {
	*killFixture
	agent  *process
	socket string
	config string
}

func newAgentWorkload(t *testing.T) *agentWorkload {
	t.Helper()
	w := &agentWorkload{killFixture: &killFixture{dir: t.TempDir()}}
	for _, dir := range []string{w.dir, filepath.Dir(w.dir)} { // other users pass through
		must(t, os.Chmod(dir, 0o755))
	}
	w.program = selfAs(t, w.dir)
	w.ok(t, "init", "--dir", "ca", "--plain-keys", "--dns", "localhost", "--dns", "127.0.0.1")
	path := filepath.Join(w.dir, "ca", "pki.yaml")
	text, err := os.ReadFile(path)
	must(t, err)
	text = []byte(strings.Replace(string(text), "\nprofiles:\n", "\nprofiles:\n  web: {names: [web, \"spiffe://artstore.example/web\"]}\n", 1))
	must(t, os.WriteFile(path, text, 0o600))
	w.start(t, "serve", "--dir", "ca", "--listen", "127.0.0.1:0", "--ready-file", "ca.url")
	w.ok(t, "token", "--dir", "ca", "--out", "token", "web")
	w.socket, w.config = filepath.Join(w.dir, "w"), filepath.Join(w.dir, "agent.yaml")
	must(t, os.WriteFile(w.config, fmt.Appendf(nil, `ca_url: %s
socket: %[2]s/s
identities:
- {name: web, service: web, dir: %[2]s/id, token_file: %[2]s/token}
workload_api:
  socket: %[2]s/w
  rules:
  - {user: "%[3]d", identities: [web]}
`, w.url(t, "ca.url"), w.dir, os.Geteuid()), 0o600))
	w.agent = w.start(t, "agent", "--config", "agent.yaml")
	w.until(t, "a certificate", func() bool { return w.identity(t, "web").Serial != "" })
	return w
}

// status asks the agent; the zero value is no answer.
func (w *agentWorkload) status(t *testing.T) (s agent.Status) {
	t.Helper()
	out, code := w.end(t, "agent", "status", "--socket", "s", "-o", "json")
	if code != 0 || json.Unmarshal([]byte(out), &s) != nil {
		return agent.Status{}
	}
	return s
}

func (w *agentWorkload) identity(t *testing.T, name string) agent.IdentityStatus {
	t.Helper()
	for _, i := range w.status(t).Identities {
		if i.Name == name {
			return i
		}
	}
	return agent.IdentityStatus{}
}

func (w *agentWorkload) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(50 * time.Millisecond) { // another process
		if time.Now().After(limit) {
			t.Fatalf("%s: not seen\n%s", what, w.agent.out)
		}
	}
}

// anotherUser asks as a user without a rule, who gets one by a reload.
func (w *agentWorkload) anotherUser(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Log("only root can connect as another user")
		return
	}
	if err := w.fetchAs(t, strangerUID); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), fmt.Sprintf("no rule gives an identity to user %d", strangerUID)) {
		t.Errorf("another user: %v", err)
	}
	before := w.identity(t, "web").Serial
	text, err := os.ReadFile(w.config)
	must(t, err)
	must(t, os.WriteFile(w.config, fmt.Appendf(text, "  - {user: \"%d\", identities: [web]}\n", strangerUID), 0o600))
	must(t, w.agent.cmd.Process.Signal(syscall.SIGHUP))
	w.until(t, "two rules", func() bool { s := w.status(t); return s.Workload != nil && s.Workload.Rules == 2 })
	if err := w.fetchAs(t, strangerUID); err != nil {
		t.Errorf("a user with a new rule: %v", err)
	}
	if after := w.identity(t, "web").Serial; after != before {
		t.Errorf("the reload made certificate %s of %s", after, before)
	}
	out, code := w.end(t, "agent", "status", "--socket", "s")
	if code != 0 || !strings.Contains(out, "Workload API: "+w.socket+", 2 rules\n") || !strings.Contains(out, "spiffe://artstore.example/web") {
		t.Errorf("status prints\n%s", out)
	}
	if out, code := w.end(t, "agent", "check", "--config", "agent.yaml"); code != 0 || out != "" {
		t.Errorf("check prints\n%s", out)
	}
}

// fetchAs fetches an SVID over a connection of another user.
func (w *agentWorkload) fetchAs(t *testing.T, uid int) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c, err := workloadapi.New(ctx, workloadapi.WithAddr("unix://"+w.socket), workloadapi.WithDialOptions(
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dialAs(ctx, w.socket, uid) })))
	must(t, err)
	defer func() { _ = c.Close() }()
	_, err = c.FetchX509SVID(ctx)
	return err
}

// dialAs connects as another user. The kernel notes the user of the thread: a system call that is not
// made by package syscall's own Setresuid changes that of one thread only.
func dialAs(ctx context.Context, path string, uid int) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			err = errno
			return
		}
		conn, err = dialHere(path)
	}()
	select {
	case <-done:
		return conn, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// dialHere connects in the thread of the caller, which [net.Dialer] need not do.
func dialHere(path string) (net.Conn, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() { _ = f.Close() }() // FileConn has its own
	if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		return nil, err
	}
	return net.FileConn(f)
}
