package tlsalert

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/artstore/artstore-pki/internal/testpki"
)

// The reading half of a connection has the server's alert when the writing half
// has nothing but a closed connection to report.
func TestReadFindsTheAlert(t *testing.T) {
	server, stranger := selfSigned(t), selfSigned(t)
	trusted := x509.NewCertPool()
	trusted.AddCert(server.Leaf)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	refused := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			refused <- err
			return
		}
		refused <- tls.Server(c, &tls.Config{Certificates: []tls.Certificate{server}, ClientCAs: trusted,
			ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}).Handshake()
		_, _ = io.Copy(io.Discard, c) // a close with data unread would be a reset, which loses the alert
		_ = c.Close()
	}()
	conn, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{Certificates: []tls.Certificate{stranger},
		RootCAs: trusted, ServerName: "localhost", MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err) // under TLS 1.3 the refusal comes later
	}
	_, want := conn.Read(make([]byte, 1))
	if err := <-refused; err == nil {
		t.Fatal("the server took a stranger")
	}
	_ = conn.Close()
	for _, failed := range []error{net.ErrClosed, syscall.EPIPE, syscall.ECONNRESET} {
		if got := read(conn, &net.OpError{Op: "write", Err: failed}); got.Error() != want.Error() {
			t.Errorf("after %v: %v, want %v", failed, got, want)
		}
	}
	if got := read(conn, io.ErrUnexpectedEOF); !errors.Is(got, io.ErrUnexpectedEOF) {
		t.Errorf("a connection that may live on was asked: %v", got)
	}
	// A connection without an alert keeps the error as it is.
	here, there := net.Pipe()
	defer func() { _ = there.Close() }()
	if got := read(here, net.ErrClosed); !errors.Is(got, net.ErrClosed) {
		t.Errorf("no alert: %v", got)
	}
}

// Only texts of alerts count, and only those that a peer has sent.
func TestKinds(t *testing.T) {
	sent := func(text string) error {
		return fmt.Errorf("sending: %w", &net.OpError{Op: "remote error", Err: errors.New(text)})
	}
	for name, tc := range map[string]struct {
		err                  error
		text                 string
		certificate, refused bool
	}{
		"certificate": {sent("tls: unknown certificate authority"), "tls: unknown certificate authority", true, true},
		"handshake":   {sent("tls: handshake failure"), "tls: handshake failure", false, true},
		"another":     {sent("tls: user canceled"), "tls: user canceled", false, false},
		"our own":     {&net.OpError{Op: "local error", Err: errors.New("tls: bad certificate")}, "", false, false},
		"no alert":    {net.ErrClosed, "", false, false},
		"no error":    {nil, "", false, false},
	} {
		if got := Text(tc.err); got != tc.text || CertificateRefused(tc.err) != tc.certificate || Refused(tc.err) != tc.refused {
			t.Errorf("%s: %q, certificate %v, refused %v", name, got, CertificateRefused(tc.err), Refused(tc.err))
		}
	}
}

// selfSigned returns a certificate for localhost that is its own authority.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	return testpki.Root(t, "localhost", func(c *x509.Certificate) { c.DNSNames = []string{"localhost"} }).TLS()
}
