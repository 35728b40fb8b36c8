package hints_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"testing"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/hints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// The kind of an error decides about its advice, also below other text.
func TestFor(t *testing.T) {
	refused := &enroll.Error{Status: http.StatusForbidden, Message: "no"}
	for _, c := range []struct {
		err  error
		some bool
	}{
		{nil, false},
		{errors.New("check the owner and mode of the path"), false}, // the text is that of a hint, the kind is none
		{fmt.Errorf("opening x: %w", os.ErrPermission), true},
		{&net.OpError{Op: "dial", Err: errors.New("refused")}, true},
		{&net.OpError{Op: "read", Err: errors.New("reset")}, false},
		{fmt.Errorf("renewing: %w", refused), true},
		{&enroll.Error{Status: http.StatusInternalServerError}, false},
		{fmt.Errorf("y: %w", durable.ErrNotEmpty), true},
	} {
		if got := hints.For(c.err); (got != "") != c.some {
			t.Errorf("%v: advice %q", c.err, got)
		}
	}
	lineage := &enroll.Error{Status: http.StatusForbidden, Message: "profiles.x.max_live_per_lineage"}
	if hints.For(lineage) == hints.For(refused) {
		t.Error("a full lineage has the advice of any refusal")
	}
}

// Advice changes neither the text of an error nor what it matches.
func TestErrorsStayTheSame(t *testing.T) {
	refused := fmt.Errorf("asking: %w", &enroll.Error{Status: http.StatusForbidden})
	plain := errors.New("plain")
	for name, c := range map[string]struct {
		err, got error
		hint     bool
	}{
		"refused":     {refused, hints.Refused(refused, "ask the operator"), true},
		"not refused": {plain, hints.Refused(plain, "ask the operator"), false},
	} {
		if !errors.Is(c.got, c.err) || c.got.Error() != c.err.Error() || ui.HasHint(c.got) != c.hint {
			t.Errorf("%s: %v, with advice: %t", name, c.got, ui.HasHint(c.got))
		}
	}
}
