package source_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/source"
)

func TestGlobs(t *testing.T) {
	root, _, leaf := certtest.Hierarchy(t)
	dir := certtest.Write(t, map[string][]byte{
		"ca.pem": certtest.Encode(root), "a.crt": certtest.Encode(leaf), "b.pem": certtest.Encode(leaf), "x/y/c.crt": certtest.Encode(leaf), "old/d.crt": certtest.Encode(leaf), "x/old/e.crt": certtest.Encode(leaf),
	})
	for _, c := range []struct {
		include, exclude []string
		want             string
	}{
		{nil, nil, "a.crt b.pem ca.pem old/d.crt x/old/e.crt x/y/c.crt"},
		{[]string{"*.crt"}, nil, "a.crt old/d.crt x/old/e.crt x/y/c.crt"},
		{[]string{"*.crt"}, []string{"old"}, "a.crt x/y/c.crt"},
		{[]string{"x/**/*.crt", "b.*"}, []string{"x/old"}, "b.pem x/y/c.crt"},
		{nil, []string{"**/*.crt"}, "b.pem ca.pem"},
		{[]string{"[", "nothing"}, nil, ""},
	} {
		r := audittest.Run(t, source.Targets{Names: []string{dir}, Include: c.include, Exclude: c.exclude})
		var got []string
		for place, state := range audittest.States(t, r, dir) {
			if strings.HasPrefix(state, "ERROR") {
				place = ""
			}
			got = append(got, place)
		}
		slices.Sort(got)
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%v %v: %q, want %q", c.include, c.exclude, text, c.want)
		}
	}
}
