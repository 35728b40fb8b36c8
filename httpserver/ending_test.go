package httpserver

import (
	"net"
	"testing"
)

// TestDetachAtTheEnd: a handler that begins to detach its request when the server has ended cannot,
// and one that began before can. Otherwise its answer found that drain had been told already,
// and brought the program down.
func TestDetachAtTheEnd(t *testing.T) {
	l := newDetachedConns(&net.TCPAddr{})
	for range 2 {
		if !l.begin() {
			t.Error("a request was refused before the end")
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l.begin() {
		t.Error("a request was detached after the end")
	}
	d := &Detached{}
	if !l.add(d) {
		t.Error("a request that had begun before the end was cut")
	}
	l.giveUp()
	select {
	case <-l.empty:
		t.Error("drain does not wait for the open request")
	default:
	}
	if !l.remove(d) || l.remove(d) {
		t.Error("the request was open once")
	}
	if !l.drain(make(chan struct{})) {
		t.Error("a request was cut")
	}
}

// TestDetachAfterTheCut: nobody would close a connection that is detached behind the cut.
func TestDetachAfterTheCut(t *testing.T) {
	l := newDetachedConns(&net.TCPAddr{})
	first, second := l.begin(), l.begin()
	stop := make(chan struct{})
	close(stop)
	if err := l.Close(); err != nil || !first || !second {
		t.Fatal(first, second, err)
	}
	if l.drain(stop) || l.add(&Detached{}) {
		t.Error("a request that had not got as far was not cut")
	}
	l.giveUp()
}
