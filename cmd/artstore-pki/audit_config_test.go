package main

import (
	"slices"
	"strings"
	"testing"
)

func TestTargetList(t *testing.T) {
	got := targetList("# servers\nstorage:8010\r\n\n  /etc/artstore/a b  \n  # no\nhttps://[::1]:8000/x#y\n@other\nlast")
	if want := []string{"storage:8010", "/etc/artstore/a b", "https://[::1]:8000/x#y", "@other", "last"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// FuzzTargetList: targets are on one line, not empty, no comments, and reading them again gives the same.
func FuzzTargetList(f *testing.F) {
	f.Add("a\n#b\r\n c ")
	f.Fuzz(func(t *testing.T, text string) {
		list := targetList(text)
		for _, target := range list {
			if target == "" || target[0] == '#' || strings.ContainsRune(target, '\n') {
				t.Errorf("%q", target)
			}
		}
		if again := targetList(strings.Join(list, "\n")); !slices.Equal(again, list) {
			t.Errorf("%q, then %q", list, again)
		}
	})
}
