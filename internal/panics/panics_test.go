package panics_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/internal/panics"
)

// run calls f and returns its panic as an error.
func run(f func()) (err error) {
	defer panics.Catch(func(p *panics.Error) { err = p })
	f()
	return nil
}

func burst() { panic(io.ErrUnexpectedEOF) }

func TestCatch(t *testing.T) {
	if err := run(func() {}); err != nil {
		t.Errorf("without a panic: %v", err)
	}
	err := run(burst)
	p, ok := errors.AsType[*panics.Error](err)
	if !ok || !errors.Is(err, io.ErrUnexpectedEOF) || err.Error() != "panic: unexpected EOF" {
		t.Fatalf("caught %v", err)
	}
	if !strings.Contains(p.Stack, "panics_test.burst") {
		t.Errorf("the stack does not name the function that panicked:\n%s", p.Stack)
	}
	if err := run(func() { panic(map[string]int{"a": 1}) }); err == nil || err.Error() != "panic: map[a:1]" || errors.Unwrap(err) != nil {
		t.Errorf("caught %v", err)
	}
}

func TestInto(t *testing.T) {
	parse := func(f func()) (err error) {
		defer panics.Catch(panics.Into(&err, "the parser"))
		f()
		return nil
	}
	if err := parse(func() {}); err != nil {
		t.Errorf("without a panic: %v", err)
	}
	if err := parse(burst); err == nil || err.Error() != "panic in the parser: unexpected EOF" {
		t.Errorf("caught %v", err)
	}
}
