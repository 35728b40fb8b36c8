package ingestclient_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/artstore/artstore-pki/ingestclient"
)

// The reading half of a connection has the server's alert when the writing half
// has nothing but a closed connection to report.
func TestLastWord(t *testing.T) {
	a, strangers := newAuthority(t), newAuthority(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	refused := make(chan error, 1)
	go func() {
		c, err := lingering{ln}.Accept()
		if err != nil {
			refused <- err
			return
		}
		refused <- tls.Server(c, &tls.Config{Certificates: []tls.Certificate{a.issue("server")}, ClientCAs: a.pool(),
			ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}).Handshake()
		_ = c.Close()
	}()
	conn, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{Certificates: []tls.Certificate{strangers.issue("ingester")},
		RootCAs: a.pool(), ServerName: "localhost", MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err) // under TLS 1.3 the refusal comes later
	}
	_, want := conn.Read(make([]byte, 1))
	if err := <-refused; err == nil {
		t.Fatal("the server took a stranger")
	}
	_ = conn.Close()
	for _, failed := range []error{net.ErrClosed, syscall.EPIPE, syscall.ECONNRESET} {
		if got := ingestclient.LastWord(conn, &net.OpError{Op: "write", Err: failed}); got.Error() != want.Error() {
			t.Errorf("after %v: %v, want %v", failed, got, want)
		}
	}
	if got := ingestclient.LastWord(conn, io.ErrUnexpectedEOF); !errors.Is(got, io.ErrUnexpectedEOF) {
		t.Errorf("a connection that may live on was asked: %v", got)
	}
	// A connection without an alert keeps the error as it is.
	here, there := net.Pipe()
	defer func() { _ = there.Close() }()
	if got := ingestclient.LastWord(here, net.ErrClosed); !errors.Is(got, net.ErrClosed) {
		t.Errorf("no alert: %v", got)
	}
}
