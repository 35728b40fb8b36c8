package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// TestChanged: the ids of two sets say what differs.
func TestChanged(t *testing.T) {
	for _, c := range []struct {
		before, after string
		want          []string
	}{
		{"", "certificate:a trust:b lists:c files:d", []string{"certificate", "trust", "lists"}},
		{"certificate:a trust:b lists:c files:d", "certificate:A trust:b lists:c files:D", []string{"certificate"}},
		{"certificate:a trust:b lists:c files:d", "certificate:a trust:B lists:C files:D", []string{"trust", "lists"}},
		{"certificate:a trust:b lists:c files:d", "certificate:a trust:b lists:c files:D", []string{"files"}},
		{"certificate:a trust:b lists:c files:d", "certificate:a trust:b lists:c files:d", nil},
	} {
		if got := changed(c.before, c.after); !slices.Equal(got, c.want) {
			t.Errorf("%s to %s: %v, want %v", c.before, c.after, got, c.want)
		}
	}
}

// TestReadSet: what is no whole set is an error, and never half of one.
func TestReadSet(t *testing.T) {
	ca := pkitest.NewCA(t)
	dir := t.TempDir()
	if _, err := readSet(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
	if err := enroll.WriteFiles(dir, ca.Leaf(t, "one")); err != nil {
		t.Fatal(err)
	}
	s, err := readSet(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := readSet(dir)
	if err != nil || again.id != s.id || s.leaf.Subject.CommonName == "" && len(s.leaf.DNSNames) == 0 {
		t.Errorf("the same set has another id: %v", err)
	}
	current := filepath.Join(dir, currentName)
	for name, content := range map[string]string{caName: "no PEM", certName: "x", keyName: ""} {
		good, err := os.ReadFile(filepath.Join(current, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(current, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readSet(dir); err == nil || !strings.HasPrefix(err.Error(), "reading the set: ") {
			t.Errorf("%s is broken: %v", name, err)
		}
		if err := os.WriteFile(filepath.Join(current, name), good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(current, "more")
	if err := os.Symlink("/etc/passwd", link); err != nil {
		t.Fatal(err)
	}
	if _, err := readSet(dir); err == nil || !strings.Contains(err.Error(), "is no file of at most") {
		t.Errorf("a link in the generation: %v", err)
	}
	if err := errors.Join(os.Remove(link), os.Remove(current), os.Symlink("../elsewhere", current)); err != nil {
		t.Fatal(err)
	}
	if _, err := readSet(dir); err == nil || !strings.Contains(err.Error(), "which is no generation") {
		t.Errorf("a link to elsewhere: %v", err)
	}
}

// TestOwnLinks: a file of the operator is never replaced, and links of formats that are gone are
// removed.
func TestOwnLinks(t *testing.T) {
	i := &Identity{Dir: t.TempDir(), Formats: []Format{{Kind: "combined-pem", File: "tls.pem"}, {Kind: "sec1", File: "tls.sec1.key"}}}
	src, err := enroll.New(enroll.Config{URL: "https://ca.example", Dir: i.Dir, Complete: i.complete})
	if err != nil {
		t.Fatal(err)
	}
	if err := enroll.WriteFiles(i.Dir, pkitest.NewCA(t).Leaf(t, "one")); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(i.Dir, "tls.pem")
	if err := os.WriteFile(mine, []byte("of the operator"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := src.Rewrite(); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "tls.pem is not ours to replace") {
		t.Errorf("a file in the way: %v", err)
	}
	if err := os.Remove(mine); err != nil {
		t.Fatal(err)
	}
	if err := src.Rewrite(); err != nil {
		t.Fatal(err)
	}
	s, err := readSet(i.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(mine); err != nil { // the link
		t.Fatal(err)
	}
	if outdated, err := i.outdated(s); outdated || err != nil {
		t.Errorf("outdated: %t, %v", outdated, err)
	}
	if _, err := os.Stat(mine); err != nil {
		t.Errorf("the link is not made again: %v", err)
	}
	i.Formats = i.Formats[:1]
	if outdated, err := i.outdated(s); !outdated || err != nil {
		t.Errorf("a format that is not wanted any more: %t, %v", outdated, err)
	}
	if err := errors.Join(src.Rewrite(), i.tidy()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(i.Dir, "tls.sec1.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its link is there: %v", err)
	}
	if s, err = readSet(i.Dir); err != nil {
		t.Fatal(err)
	}
	i.Access.Owner = "no-such-user"
	if _, err := i.outdated(s); err == nil {
		t.Error("an owner who does not exist")
	}
}
