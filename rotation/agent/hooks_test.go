//go:build unix

package agent

import (
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/hook"
)

func runHook(t *testing.T, h *Hook, s *set) (string, error) {
	t.Helper()
	if h.Timeout == 0 {
		h.Timeout = time.Minute
	}
	if err := h.check(); err != nil {
		t.Fatal(err)
	}
	if h.describe() == "" {
		t.Error("no description")
	}
	return h.run(t.Context(), hook.Event{Serial: "0x1", Changed: []string{"certificate"}}, s)
}

func TestHTTPHook(t *testing.T) {
	t.Parallel()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/fine":
			_, _ = w.Write([]byte(r.Method + " " + r.Header.Get("X-Rotated-Changed") + " " + r.Header.Get("X-Rotated-Serial") + "\x1b[2J"))
		case "/moved":
			http.Redirect(w, r, "/fine", http.StatusFound)
		case "/slow":
			<-r.Context().Done()
		default:
			http.Error(w, "no such unit", http.StatusNotFound)
		}
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer secure.Close()
	root := &set{roots: []*x509.Certificate{secure.Certificate()}}
	for _, base := range []string{plain.URL, secure.URL} {
		if out, err := runHook(t, &Hook{URL: base + "/fine"}, root); err != nil || !strings.HasPrefix(out, "POST certificate 0x1") || strings.Contains(out, "\x1b") {
			t.Errorf("%s: %q, %v", base, out, err)
		}
	}
	for path, want := range map[string]string{"/moved": "status 302", "/absent": "status 404: no such unit", "/slow": "deadline exceeded"} {
		if _, err := runHook(t, &Hook{URL: plain.URL + path, Timeout: 300 * time.Millisecond}, root); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	if _, err := runHook(t, &Hook{URL: secure.URL + "/fine"}, &set{}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a server under no root of ours: %v", err)
	}
}

// TestSystemctl expects the arguments that systemctl gets. The one here writes them down.
func TestSystemctl(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte("#!/bin/sh\necho \"$*\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for want, h := range map[string]*Hook{
		"reload-or-restart -- nginx.service":                     {Reload: "nginx.service"},
		"kill --kill-whom=main --signal=USR1 -- haproxy.service": {Unit: "haproxy.service", Signal: "USR1"},
	} {
		if out, err := runHook(t, h, nil); err != nil || out != want {
			t.Errorf("%q, %v, want %q", out, err, want)
		}
	}
}

func TestPIDFile(t *testing.T) {
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.SIGUSR1)
	defer signal.Stop(got)
	path := filepath.Join(t.TempDir(), "pid")
	send := func(text string, mode os.FileMode) error {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := runHook(t, &Hook{PIDFile: path, Signal: "USR1"}, nil)
		return err
	}
	if err := send(strconv.Itoa(os.Getpid())+"\n/var/lib/postgresql\n5432\n", 0o644); err != nil {
		t.Fatal(err)
	}
	<-got
	gone := exec.CommandContext(t.Context(), "true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"":                                "there is no number of a process in it",
		"1":                               "there is no number of a process in it",
		"-5":                              "there is no number of a process in it",
		"x":                               "there is no number of a process in it",
		strconv.Itoa(gone.Process.Pid):    "process " + strconv.Itoa(gone.Process.Pid) + " of ",
		strconv.Itoa(os.Getpid()) + " 00": "there is no number of a process in it",
	} {
		if err := send(text, 0o644); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if err := send(strconv.Itoa(os.Getpid()), 0o666); err == nil || !strings.Contains(err.Error(), "others than its owner can write to it") {
		t.Errorf("a file for all: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := runHook(t, &Hook{PIDFile: path, Signal: "USR1"}, nil); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("absent: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("a file of another user takes root to make")
	}
	if err := send(strconv.Itoa(os.Getpid()), 0o644); err != nil {
		t.Fatal(err)
	}
	<-got
	if err := os.Chown(path, 1600, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := runHook(t, &Hook{PIDFile: path, Signal: "USR1"}, nil); err == nil || !strings.Contains(err.Error(), "belongs to user 1600") {
		t.Errorf("a file of another user: %v", err)
	}
}
