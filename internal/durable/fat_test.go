//go:build unix

package durable_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/fattest"
)

// On disks without modes and hard links the promises are the same: whole files,
// and nothing is replaced that the call did not make.
func TestFileSystemsWithoutLinks(t *testing.T) {
	for _, kind := range fattest.Kinds() {
		t.Run(kind, func(t *testing.T) {
			dir := fattest.Mount(t, kind)
			path := filepath.Join(dir, "root.key")
			stream := func(text string) error {
				return durable.WriteNewStream(path, durable.Private, func(w io.Writer) error {
					_, err := io.WriteString(w, text)
					return err
				})
			}
			for name, write := range map[string]func(string) error{
				"new":    func(text string) error { return durable.WriteNew(path, []byte(text), durable.Private) },
				"stream": stream,
			} {
				if err := write("mine"); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if err := write("other"); !errors.Is(err, fs.ErrExist) {
					t.Errorf("%s, again: %v, want fs.ErrExist", name, err)
				}
				if got, err := os.ReadFile(path); err != nil || string(got) != "mine" {
					t.Errorf("%s: content %q, %v", name, got, err)
				}
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			for _, text := range []string{"one", "two, longer"} {
				if err := durable.WriteFile(path, []byte(text), durable.Public); err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(path); err != nil || string(got) != text {
					t.Errorf("content %q, %v; want %q", got, err, text)
				}
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
				t.Errorf("left behind: %v, %v", entries, err)
			}
		})
	}
}
