package secret_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/secret"
)

const canary = "canary-7f3a"

func TestNeverPrinted(t *testing.T) {
	s := secret.New(canary)
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", s)
		fmt.Fprintf(&out, verb+"\n", struct{ S secret.String }{s})
		fmt.Fprintf(&out, verb+"\n", &s)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "s", s)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "s", s, "in", struct{ S secret.String }{s})
	if err := json.NewEncoder(&out).Encode(map[string]any{"s": s}); err != nil {
		t.Fatal(err)
	}
	hex := fmt.Sprintf("%x", canary)
	if strings.Contains(out.String(), canary) || strings.Contains(out.String(), hex) {
		t.Errorf("secret in output:\n%s", out.String())
	}
	if s.Expose() != canary || s.IsZero() || s.String() != "[redacted]" {
		t.Error("Expose must give the content back")
	}
	if zero := (secret.String{}); zero.String() != "" || !zero.IsZero() {
		t.Error("the zero value is no secret")
	}
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for content, want := range map[string]string{"a": "a", "b\n": "b", "c\r\n": "c", " d \n\n": " d \n"} {
		got, err := secret.ReadFile(write("s", content))
		if err != nil || got.Expose() != want {
			t.Errorf("ReadFile(%q) = %q, %v; want %q", content, got.Expose(), err, want)
		}
	}
	if _, err := secret.ReadFile(write("empty", "\n")); !errors.Is(err, secret.ErrEmpty) {
		t.Errorf("empty file: %v", err)
	}
	if _, err := secret.ReadFile(write("big", strings.Repeat("x", 65<<10))); err == nil {
		t.Error("a file above the limit was accepted")
	}
	if _, err := secret.ReadFile(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
}
