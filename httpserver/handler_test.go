package httpserver_test

import (
	"net"
	"testing"

	"github.com/artstore/artstore-pki/httpserver"
)

// The handlers that a program registered globally are not served by accident.
func TestNoHandler(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := httpserver.Serve(t.Context(), ln, httpserver.Config{}); err == nil {
		t.Error("a server without a handler")
	}
	if _, err := ln.Accept(); err == nil {
		t.Error("the listener is open")
	}
}
