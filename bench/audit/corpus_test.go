package main

import (
	"io"
	"os"
	"testing"
)

// The corpus can be kept by naming a directory for it, to profile with.
func TestCorpus(t *testing.T) {
	dir, size := os.Getenv("BENCH_AUDIT_KEEP"), 20_000
	if dir == "" {
		dir, size = t.TempDir(), 40
	}
	c := corpusIn(dir, size)
	if err := c.generate(); err != nil {
		t.Fatal(err)
	}
	if err := walker(io.Discard, c.files, c.root); err != nil {
		t.Error(err)
	}
	if err := walker(io.Discard, c.bundle, ""); err != nil {
		t.Error(err)
	}
	if n := len(some(c.files, 7)); n != 7 {
		t.Errorf("%d files", n)
	}
}
