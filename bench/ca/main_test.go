package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Every lane of ours gets its certificates; step-ca takes minutes to build and is
// there when make bench-ca measures.
func TestTables(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "artstore-pki")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/artstore-pki")
	build.Dir = filepath.Join("..", "..") // its module, not this one
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	var out bytes.Buffer
	if err := run(t.Context(), &out, []string{"-quick", "-artstore-pki", binary, "-before", binary}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		"POST /sign, 16 keep-alive clients", "POST /renew over mutual TLS", "artstore-pki again (control)", "artstore-pki, the tree before",
		"x509.CreateCertificate again (control)", "1000 certificates committed", "expires before, soonest first", "200 revocations one by one", "token with a wrong signature",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{{"-table", "sign"}, {"-table", "list", "-n", "1"}, {"-table", "list", "more"}, {"-table", "renew", "-artstore-pki", "x", "-n", "20000"}, {"-nonsense"}} {
		if err := run(t.Context(), &bytes.Buffer{}, args); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}
