package ui

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestFinish(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		code int
		out  string
	}{
		{"nothing", t.Context(), nil, ExitOK, ""},
		{"plain", t.Context(), errors.New("reading x: gone"), ExitFailure, "artstore-pki: error: reading x: gone\n"},
		{"hint", t.Context(), WithHint(errors.New("a"), "do %s", "b"), ExitFailure, "artstore-pki: error: a\nartstore-pki: hint: do b\n"},
		{"usage", t.Context(), WithHint(UsageErrorf("bad"), "see help"), ExitUsage, "artstore-pki: error: bad\nartstore-pki: hint: see help\nartstore-pki: usage: artstore-pki x\n"},
		{"said already", t.Context(), fmt.Errorf("auditing: %w", ExitStatus(3)), 3, ""},
		{"several", t.Context(), errors.Join(errors.New("a"), errors.New("b")), ExitFailure, "artstore-pki: error: a\nartstore-pki: error: b\n"},
		{"refused", t.Context(), Refused(WithHint(errors.New("a"), "do b")), ExitRefused, "artstore-pki: error: a\nartstore-pki: hint: do b\n"},
		{"interrupted", canceled, canceled.Err(), ExitInterrupted, "artstore-pki: interrupted\n"},
		{"escape", t.Context(), errors.New("name \x1b[2J\u202e"), ExitFailure, "artstore-pki: error: name \\u001b[2J\\u202e\n"},
	} {
		var out bytes.Buffer
		u := New(Streams{Err: &out})
		if code := u.Finish(c.ctx, c.err, "artstore-pki x"); code != c.code || out.String() != c.out {
			t.Errorf("%s: status %d, output %q; want %d, %q", c.name, code, out.String(), c.code, c.out)
		}
	}
}
