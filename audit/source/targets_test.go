package source_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/source"
)

func TestStdin(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	t.Chdir(certtest.Write(t, map[string][]byte{"ca.crt": certtest.Encode(root), "-.key": leaf.KeyPEM(t)})) // none of standard input's business
	for _, c := range []struct {
		name  string
		in    io.Reader
		first string // of the rows, with what is wrong
	}{
		{"a chain", strings.NewReader(string(certtest.Encode(leaf, intermediate))), "OK"},
		{"a key alone", strings.NewReader(string(leaf.KeyPEM(t))), "OK"},
		{"nothing", strings.NewReader(""), "ERROR the file is empty"},
		{"none", nil, "ERROR the file is empty"},
		{"no end", endless{}, "ERROR it is larger than 32 MiB"},
		{"broken", iotest.ErrReader(errors.New("disk I/O error")), "ERROR disk I/O error"},
	} {
		r := audittest.Run(t, source.Targets{Names: []string{"-"}, Stdin: c.in})
		if got := audittest.States(t, r, "")["-"]; got != c.first {
			t.Errorf("%s: %s, want %s", c.name, got, c.first)
		}
		if c.name == "a chain" && r.Unjudged != 1 {
			t.Error("a bundle was taken from the working directory")
		}
	}
	in := strings.NewReader(string(certtest.Encode(leaf)))
	if got := audittest.States(t, audittest.Run(t, source.Targets{Names: []string{"-"}, Stdin: in, Bundle: certtest.Bundle([]*certtest.Pair{root})}), "")["-"]; got != "CRIT chain-incomplete" {
		t.Error(got)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
