package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// The corpus can be kept by naming a directory for it, to profile with.
func TestCorpus(t *testing.T) {
	dir, size := os.Getenv("BENCH_AUDIT_KEEP"), 20_000
	if dir == "" {
		dir, size = t.TempDir(), 40
	}
	c, err := makeCorpus(dir, size)
	if err != nil {
		t.Fatal(err)
	}
	if err := walker(c.files, c.root); err != nil {
		t.Error(err)
	}
	if err := walker(c.bundle, ""); err != nil {
		t.Error(err)
	}
	if n := len(some(c.files, 7)); n != 7 {
		t.Errorf("%d files", n)
	}
}

// Everything but the peers runs, and every bar is printed.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program and runs it")
	}
	var out bytes.Buffer
	err := run(t.Context(), &out, options{size: 100, rounds: 1})
	t.Log(out.String())
	// The walker of a test binary is the test binary, which knows no -walk.
	if err == nil || !strings.Contains(out.String(), "each certificate by itself") {
		t.Error(err)
	}
}
