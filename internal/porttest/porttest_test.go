package porttest_test

import (
	"net"
	"testing"

	"github.com/artstore/artstore-pki/internal/porttest"
)

func TestFreeAddress(t *testing.T) {
	addr, err := porttest.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
}
