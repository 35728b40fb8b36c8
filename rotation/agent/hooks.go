package agent

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/fileperm"
	"github.com/artstore/artstore-pki/internal/hook"
	"github.com/artstore/artstore-pki/internal/printable"
)

// signals are those that programs take for "read your files again", and those that end one whose
// manager starts it again.
var signals = map[string]syscall.Signal{
	"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "QUIT": syscall.SIGQUIT, "USR1": sigusr1, "USR2": sigusr2,
}

const (
	maxOutput  = 4 << 10 // bytes that are kept of an answer
	maxPIDFile = 64
)

// commandOf returns a command with the time limit of the hook.
func (h *Hook) commandOf(args []string) hook.Command {
	return hook.Command{Args: args, Timeout: h.Timeout}
}

// run puts the files of a set into effect, once. output is what the program or server said, bounded
// and harmless on a terminal.
func (h *Hook) run(ctx context.Context, e hook.Event, s *set) (output string, err error) {
	switch {
	case h.Command != nil:
		return h.commandOf(h.Command).Run(ctx, e)
	case h.Reload != "":
		return h.commandOf([]string{"systemctl", "reload-or-restart", "--", h.Reload}).Run(ctx, e)
	case h.Unit != "":
		return h.commandOf([]string{"systemctl", "kill", "--kill-whom=main", "--signal=" + h.Signal, "--", h.Unit}).Run(ctx, e)
	case h.PIDFile != "":
		return "", signalPIDFile(h.PIDFile, signals[h.Signal])
	}
	return h.post(ctx, e, s)
}

// post sends a request without a body. The server is verified by the trust bundle of the set; a
// redirect is not followed, because it could lead away from this machine.
func (h *Hook) post(ctx context.Context, e hook.Event, s *set) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, http.NoBody)
	if err != nil {
		return "", errors.New("asking the hook: its URL cannot be used")
	}
	req.Header.Set("X-Rotated-Changed", strings.Join(e.Changed, " "))
	req.Header.Set("X-Rotated-Serial", e.Serial)
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: certs.Pool(s.roots...)},
		DisableKeepAlives: true, MaxResponseHeaderBytes: maxOutput,
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", fmt.Errorf("asking the hook %s: %w", req.URL.Host, err)
	}
	defer func() { _ = resp.Body.Close() }() // read only
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxOutput))
	output := printable.Clean(string(bytes.ToValidUTF8(body, []byte("?"))))
	if err != nil {
		return output, fmt.Errorf("asking the hook %s: %w", req.URL.Host, err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return output, fmt.Errorf("asking the hook %s: status %d: %s", req.URL.Host, resp.StatusCode, hook.LastLine(output))
	}
	return output, nil
}

// signalPIDFile sends a signal to the process whose number is in a file. The file must belong to
// root, to this user or to the user of that process: another user could choose which process
// gets the signal.
func signalPIDFile(path string, sig syscall.Signal) error {
	pid, owner, err := readPIDFile(path)
	if err != nil {
		return fmt.Errorf("signalling by %s: %w", path, err)
	}
	p, err := os.FindProcess(pid) // holds the process where the system can, so that its number cannot go to another one
	if err != nil {
		return fmt.Errorf("signalling process %d of %s: %w", pid, path, err)
	}
	defer func() { _ = p.Release() }() // the process is not a child
	if user, known := userOf(pid); known && owner != user && owner != 0 && owner != os.Geteuid() {
		return fmt.Errorf("signalling by %s: the file belongs to user %d, and process %d to user %d", path, owner, pid, user)
	}
	if err := p.Signal(sig); err != nil {
		return fmt.Errorf("signalling process %d of %s: %w", pid, path, err)
	}
	return nil
}

// readPIDFile returns the number of the process, and the owner of the file.
func readPIDFile(path string) (pid, owner int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = f.Close() }() // read only
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	if !info.Mode().IsRegular() || info.Mode()&0o022 != 0 {
		return 0, 0, errors.New("others than its owner can write to it, or it is no file")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPIDFile))
	if err != nil {
		return 0, 0, err
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n") // PostgreSQL has more lines
	pid, err = strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 {
		return 0, 0, errors.New("there is no number of a process in it")
	}
	owner, _ = fileperm.Owner(info) // 0 where files have no owner
	return pid, owner, nil
}

// userOf returns the user of a process.
func userOf(pid int) (uid int, known bool) {
	info, err := os.Stat("/proc/" + strconv.Itoa(pid))
	if err != nil {
		return 0, false
	}
	return fileperm.Owner(info)
}

// describe says in status and log what the hook is.
func (h *Hook) describe() string {
	switch {
	case h.Command != nil:
		return printable.Line(strings.Join(h.Command, " "), 200)
	case h.Reload != "":
		return "reload " + h.Reload
	case h.URL != "":
		base, _, _ := strings.Cut(h.URL, "?") // behind it there may be a secret
		return "POST " + base
	}
	return h.Signal + " to " + cmp.Or(h.Unit, h.PIDFile)
}
