//go:build unix

package secret_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/artstore/artstore-pki/secret"
)

// The rule itself has its table in internal/fileperm; here is what CheckFile makes of it.
func TestCheckFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	if err := os.WriteFile(path, []byte("canary-7f3a"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := secret.CheckFile(path); err != nil {
		t.Errorf("mode 0600: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	err := secret.CheckFile(path)
	if !errors.Is(err, secret.ErrExposed) || !strings.Contains(err.Error(), path+" has mode 0644") {
		t.Errorf("mode 0644: %v", err)
	}
	if strings.Contains(err.Error(), canary) {
		t.Errorf("the content is in the error: %v", err)
	}
	if err := secret.CheckFile(filepath.Join(dir, "absent")); err != nil {
		t.Errorf("absent: %v", err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := secret.CheckFile(pipe); err != nil {
		t.Errorf("a pipe: %v", err)
	}
	if _, err := secret.ReadFile(dir); err == nil {
		t.Error("a directory was read")
	}
}
