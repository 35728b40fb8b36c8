//go:build linux

package workload

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/status"
)

// helperEnv makes this test binary a helper: a client of the socket that it names.
const helperEnv = "WORKLOAD_TEST_HELPER"

// connectOnly, in front of a socket, makes it connect and end.
const connectOnly = "connect only:"

// answer is what a helper prints.
type answer struct {
	SVID    string // SPIFFE ID and hint, joined
	Bundles int
	Code    string // of the status of FetchX509SVID
	Err     string
}

func TestMain(m *testing.M) {
	socket := os.Getenv(helperEnv)
	if socket == "" {
		m.Run()
		return
	}
	if path, ok := strings.CutPrefix(socket, connectOnly); ok {
		if _, err := new(net.Dialer).DialContext(context.Background(), "unix", path); err != nil {
			panic(err)
		}
		return
	}
	if err := json.NewEncoder(os.Stdout).Encode(fetch(socket)); err != nil {
		panic(err)
	}
}

func fetch(socket string) answer {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := workloadapi.New(ctx, workloadapi.WithAddr("unix://"+socket))
	if err != nil {
		return answer{Err: err.Error()}
	}
	defer func() { _ = c.Close() }()
	var a answer
	if set, err := c.FetchX509Bundles(ctx); err == nil {
		a.Bundles = set.Len()
	}
	svid, err := c.FetchX509SVID(ctx)
	if err != nil {
		a.Code, a.Err = status.Code(err).String(), err.Error()
		return a
	}
	a.SVID = svid.ID.String() + " " + svid.Hint
	return a
}

// program copies this test binary to a place where every user may run it. It is another file than
// all other copies.
func program(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	from, err := os.Open(self)
	must(t, err)
	defer func() { _ = from.Close() }()
	path := filepath.Join(publicDir(t), "program")
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	must(t, err)
	_, err = io.Copy(to, from)
	must(t, errors.Join(err, to.Close()))
	return path
}

// run runs a helper with the credentials, nil for those of the test.
func (w *world) run(path string, cred *syscall.Credential) answer {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = []string{helperEnv + "=" + w.path}
	cmd.Dir = "/"
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	out, err := cmd.Output()
	var a answer
	if err != nil || json.Unmarshal(out, &a) != nil {
		w.t.Errorf("helper: %v: %q", err, strings.TrimSpace(string(out)))
	}
	return a
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process of another user")
	}
}
