package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadmeCompiles: each Go block of README.md stands in a file that the
// compiler sees, word for word.
func TestReadmeCompiles(t *testing.T) {
	read := func(path string) string {
		raw, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(path)))
		must(t, err)
		return string(raw)
	}
	compiled := read("rotation/enroll/example_readme_test.go")
	blocks := strings.Split(read("README.md"), "```go\n")[1:]
	if len(blocks) == 0 {
		t.Fatal("README.md has no Go code")
	}
	for _, b := range blocks {
		code, _, _ := strings.Cut(b, "```")
		if !strings.Contains(compiled, code) {
			t.Errorf("this block of README.md is not in the example:\n%s", code)
		}
	}
}
