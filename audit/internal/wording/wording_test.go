package wording_test

import (
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/wording"
)

func TestPlural(t *testing.T) {
	for n, want := range map[int]string{0: "0 keys", 1: "1 key", 2: "2 keys", 1000: "1000 keys"} {
		if got := wording.Plural(n, "key", "keys"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
