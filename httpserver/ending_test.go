package httpserver

import (
	"net"
	"testing"
)

// TestDetachAtTheEnd: a handler that still runs when the server ends can detach nothing. Otherwise
// its answer found that the end had been told of already, and brought the program down.
func TestDetachAtTheEnd(t *testing.T) {
	l := newDetachedConns(&net.TCPAddr{})
	before, after := &Detached{}, &Detached{}
	if !l.add(before) {
		t.Error("a request was refused before the end")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if !l.ending() || l.add(after) {
		t.Error("a request was detached after the end")
	}
	if !l.remove(before) || l.remove(after) || l.remove(before) {
		t.Error("only the request from before the end was open, once")
	}
	if !l.drain(make(chan struct{})) {
		t.Error("a request was cut")
	}
}
