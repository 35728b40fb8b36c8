//go:build unix

package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestForeignFilesKeepTheirAccess: a program that has put something else in the place of a file does
// not choose whose mode the agent changes.
func TestForeignFilesKeepTheirAccess(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "shadow")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for what, plant := range map[string]func(path string) error{
		"a link":        func(path string) error { return os.Symlink(target, path) },
		"a second name": func(path string) error { return os.Link(target, path) },
		"a directory":   func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		gen := filepath.Join(dir, strings.ReplaceAll(what, " ", "-"))
		if err := os.Mkdir(gen, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := plant(filepath.Join(gen, keyName)); err != nil {
			t.Fatal(err)
		}
		a := Access{Mode: 0o640}
		if err := a.apply(gen, []string{keyName}); err == nil {
			t.Errorf("%s was taken for a file of the agent", what)
		}
		if _, err := a.differs(gen, []string{keyName}); err == nil {
			t.Errorf("%s was taken for a file of the agent", what)
		}
		if info, err := os.Stat(target); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: the mode of its target is %v, %v", what, info.Mode(), err)
		}
		if info, err := os.Stat(gen); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: the generation is open: %v, %v", what, info.Mode(), err)
		}
	}
}
