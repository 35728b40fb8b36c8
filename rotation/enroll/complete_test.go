package enroll_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// TestComplete expects that what Complete adds is there before a generation takes effect, that
// its failure keeps the generation in effect, and that Rewrite changes no certificate.
func TestComplete(t *testing.T) {
	dir := t.TempDir()
	if err := enroll.WriteFiles(dir, material(t, "x")); err != nil {
		t.Fatal(err)
	}
	before, err := os.Readlink(filepath.Join(dir, "current"))
	if err != nil {
		t.Fatal(err)
	}
	want := readDir(t, dir).Certificate.Leaf.SerialNumber
	var broken error
	src, err := enroll.New(enroll.Config{URL: "https://ca.example", Dir: dir, Complete: func(gen, old string, m rotation.Material) error {
		if in, err := os.Readlink(filepath.Join(dir, "current")); err != nil || old != filepath.Join(dir, in) {
			t.Errorf("in effect is %s, %v; Complete was told %s", in, err, old)
		}
		if _, err := os.Stat(filepath.Join(gen, "tls.key")); err != nil || m.Certificate.Leaf.SerialNumber.Cmp(want) != 0 {
			t.Errorf("the generation is not whole: %v", err)
		}
		if broken != nil {
			return broken
		}
		return durable.WriteNew(filepath.Join(gen, "more"), []byte("x"), durable.Private)
	}})
	if err != nil {
		t.Fatal(err)
	}
	broken = errors.New("disk full")
	if err := src.Rewrite(); !errors.Is(err, broken) {
		t.Errorf("Rewrite = %v", err)
	}
	if now, err := os.Readlink(filepath.Join(dir, "current")); err != nil || now != before {
		t.Errorf("after a failure %s is in effect, %v; want %s", now, err, before)
	}
	broken = nil
	if err := src.Rewrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "current", "more")); err != nil {
		t.Error(err)
	}
	if got := readDir(t, dir).Certificate.Leaf.SerialNumber; got.Cmp(want) != 0 {
		t.Errorf("the certificate is another one")
	}
	empty, err := enroll.New(enroll.Config{URL: "https://ca.example", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := empty.Rewrite(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing is stored: %v", err)
	}
}
