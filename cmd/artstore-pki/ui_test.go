package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestFlagsFirst(t *testing.T) {
	app := newApp(newUI(stdio{getenv: func(string) string { return "" }}))
	for _, c := range []struct{ in, want string }{
		{"artstore-pki", "artstore-pki"},
		{"artstore-pki --help", "artstore-pki --help"},
		{"artstore-pki token ingester --dir d", "artstore-pki token --dir d -- ingester"},
		{"artstore-pki token ingester --dir=d a b", "artstore-pki token --dir=d -- ingester a b"},
		{"artstore-pki token --dir d -- --odd", "artstore-pki token --dir d -- --odd"},
		{"artstore-pki issue x --out o --force y", "artstore-pki issue --out o --force -- x y"},
		{"artstore-pki dev admin --listen :0 a", "artstore-pki dev admin --listen :0 -- a"},
		{"artstore-pki nonsense --flag x", "artstore-pki nonsense --flag x"},
	} {
		got, err := flagsFirst(app, strings.Fields(c.in))
		if err != nil || !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("flagsFirst(%q) = %q, %v; want %q", c.in, got, err, c.want)
		}
	}
	var bad *usage
	if _, err := flagsFirst(app, []string{"artstore-pki", "token", "x", "--dir"}); !errors.As(err, &bad) {
		t.Errorf("a flag without its value: %v, want a usage error", err)
	}
}

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
		{"nothing", t.Context(), nil, exitOK, ""},
		{"plain", t.Context(), errors.New("reading x: gone"), exitFailure, "artstore-pki: error: reading x: gone\n"},
		{"hint", t.Context(), withHint(errors.New("a"), "do %s", "b"), exitFailure, "artstore-pki: error: a\nartstore-pki: hint: do b\n"},
		{"usage", t.Context(), withHint(usagef("bad"), "see help"), exitUsage, "artstore-pki: error: bad\nartstore-pki: hint: see help\nartstore-pki: usage: artstore-pki x\n"},
		{"said already", t.Context(), fmt.Errorf("auditing: %w", exitStatus(3)), 3, ""},
		{"several", t.Context(), errors.Join(errors.New("a"), errors.New("b")), exitFailure, "artstore-pki: error: a\nartstore-pki: error: b\n"},
		{"interrupted", canceled, canceled.Err(), exitInterrupted, "artstore-pki: interrupted\n"},
		{"escape", t.Context(), errors.New("name \x1b[2J\u202e"), exitFailure, "artstore-pki: error: name \\u001b[2J\\u202e\n"},
	} {
		var out bytes.Buffer
		u := newUI(stdio{err: &out})
		if code := u.finish(c.ctx, c.err, "artstore-pki x"); code != c.code || out.String() != c.out {
			t.Errorf("%s: status %d, output %q; want %d, %q", c.name, code, out.String(), c.code, c.out)
		}
	}
}
