package reasons_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ca/record/reasons"
)

func TestReasons(t *testing.T) {
	if got := reasons.Taken(); len(got) != 8 || slices.Contains(got, "certificateHold") || slices.Contains(got, "removeFromCRL") {
		t.Errorf("%q", got)
	}
	for name, want := range map[string]string{
		"keyCompromise": "", "aACompromise": "", "certificateHold": "not supported", "removeFromCRL": "not supported",
		"boredom": "not a reason of RFC 5280; want one of unspecified, keyCompromise, cACompromise", "": "not a reason",
	} {
		if _, err := reasons.Parse(name); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for code, want := range map[int]string{0: "unspecified", 6: "certificateHold", 7: "reason 7", -1: "reason -1", 99: "reason 99"} {
		if got := reasons.Name(code); got != want {
			t.Errorf("%d: %q", code, got)
		}
	}
}
