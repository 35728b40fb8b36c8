package audit_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/artstore/artstore-pki/audit/source"
)

func TestStdin(t *testing.T) {
	root, intermediate, leaf := hierarchy(t)
	t.Chdir(write(t, map[string][]byte{"ca.crt": encode(root), "-.key": leaf.keyPEM(t)})) // none of standard input's business
	for _, c := range []struct {
		name  string
		in    io.Reader
		first string // of the rows, with what is wrong
	}{
		{"a chain", strings.NewReader(string(encode(leaf, intermediate))), "OK"},
		{"a key alone", strings.NewReader(string(leaf.keyPEM(t))), "OK"},
		{"nothing", strings.NewReader(""), "ERROR the file is empty"},
		{"none", nil, "ERROR the file is empty"},
		{"no end", endless{}, "ERROR it is larger than 32 MiB"},
		{"broken", iotest.ErrReader(errors.New("disk I/O error")), "ERROR disk I/O error"},
	} {
		r := run(t, source.Targets{Names: []string{"-"}, Stdin: c.in})
		if got := states(t, r, "")["-"]; got != c.first {
			t.Errorf("%s: %s, want %s", c.name, got, c.first)
		}
		if c.name == "a chain" && r.Unjudged != 1 {
			t.Error("a bundle was taken from the working directory")
		}
	}
	in := strings.NewReader(string(encode(leaf)))
	if got := states(t, run(t, source.Targets{Names: []string{"-"}, Stdin: in, Bundle: bundleOf([]*pair{root})}), "")["-"]; got != "CRIT chain-incomplete" {
		t.Error(got)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
