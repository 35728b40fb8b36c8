package enroll_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

func TestInspect(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "identity")
	if in := enroll.Inspect(dir); !slices.Equal(in.Missing, []string{"tls.crt", "tls.key", "ca.crt"}) || in.Err != nil || in.Foreign != nil {
		t.Errorf("nothing: %+v", in)
	}
	m := pkitest.NewCA(t).Leaf(t, "svc")
	if err := enroll.WriteFiles(dir, m); err != nil {
		t.Fatal(err)
	}
	in := enroll.Inspect(dir)
	if in.Err != nil || in.Missing != nil || in.Foreign != nil || !in.KeyFits || in.KeyExposed || in.Unfinished {
		t.Errorf("our files: %+v", in)
	}
	if !in.Chain[0].Equal(m.Certificate.Leaf) || !in.Roots[0].Equal(m.Roots[0]) {
		t.Error("not the certificates that were written")
	}
	for name, c := range map[string]struct {
		damage func() error
		seen   func(enroll.Inspection) bool
	}{
		"exposed":    {func() error { return os.Chmod(filepath.Join(dir, "tls.key"), 0o644) }, func(in enroll.Inspection) bool { return in.KeyExposed }},
		"unfinished": {func() error { return os.WriteFile(filepath.Join(dir, "pending-1.key"), nil, 0o600) }, func(in enroll.Inspection) bool { return in.Unfinished }},
	} {
		if err := c.damage(); err != nil {
			t.Fatal(err)
		}
		if in := enroll.Inspect(dir); !c.seen(in) || !in.KeyFits {
			t.Errorf("%s: %+v", name, in)
		}
	}
}

// TestInspectLink expects that a missing link counts as a missing file, although the
// generation is complete.
func TestInspectLink(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "identity")
	if err := enroll.WriteFiles(dir, pkitest.NewCA(t).Leaf(t, "svc")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "tls.key")); err != nil {
		t.Fatal(err)
	}
	if in := enroll.Inspect(dir); !slices.Equal(in.Missing, []string{"tls.key"}) || in.Err != nil || in.Foreign != nil {
		t.Errorf("%+v", in)
	}
}

// TestInspectForeign expects that Inspect finds the files that Issue would refuse to
// replace, and goes on after a file that cannot be parsed.
func TestInspectForeign(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "tls.crt"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	in := enroll.Inspect(dir)
	if !errors.Is(in.Foreign, fs.ErrExist) || in.Err == nil || in.KeyFits || !slices.Equal(in.Missing, []string{"tls.key", "ca.crt"}) {
		t.Errorf("foreign: %+v", in)
	}
}
