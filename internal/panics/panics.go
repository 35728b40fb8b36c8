// Package panics turns the panic of a library or of a caller's function into an
// error that keeps the stack, where one bad request must not end the process.
package panics

import (
	"fmt"
	"runtime/debug"
)

// Error is a panic that was caught. Its text is for callers; the stack is for the log.
type Error struct {
	Value any    // what panic was called with
	Stack string // of the goroutine, from the panic up
}

func (e *Error) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the error that panic was called with, or nil if it was something else.
func (e *Error) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Catch is for defer: it ends any panic and hands it to handle.
//
//	defer panics.Catch(func(p *panics.Error) { err = p })
func Catch(handle func(*Error)) {
	if p := recover(); p != nil {
		handle(&Error{Value: p, Stack: string(debug.Stack())})
	}
}

// Into is a handler for Catch that makes the panic an error of the caller. The error has the
// text in what, and no stack.
//
//	defer panics.Catch(panics.Into(&err, "the parser"))
func Into(err *error, what string) func(*Error) {
	return func(p *Error) { *err = fmt.Errorf("panic in %s: %v", what, p.Value) }
}
