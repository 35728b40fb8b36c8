package served_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/served"
	"github.com/artstore/artstore-pki/internal/certs"
)

// server speaks TLS, behind SSLRequest of PostgreSQL if postgres is set.
func server(t *testing.T, config *tls.Config, postgres bool) (address string) {
	t.Helper()
	return audittest.Accept(t, func(c net.Conn) {
		if postgres {
			request := make([]byte, 8)
			if _, err := io.ReadFull(c, request); err != nil {
				return
			}
			_, _ = io.WriteString(c, "S")
		}
		conn := tls.Server(c, config)
		_ = conn.Handshake() // refusals are the point
		_, _ = io.Copy(io.Discard, conn)
	})
}

func ask(t *testing.T, address string, config *tls.Config) served.Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), audittest.Patience)
	defer cancel()
	answer, err := served.Ask(ctx, address, config)
	if err != nil {
		t.Fatalf("%s: %v", address, err)
	}
	return answer
}

func TestAsk(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	config := &tls.Config{Certificates: []tls.Certificate{leaf.TLS(intermediate)}}
	client := &tls.Config{RootCAs: certs.Pool(certtest.Bundle([]*certtest.Pair{root})...)}
	for scheme, address := range map[string]string{"": server(t, config, false), "postgres://": server(t, config, true)} {
		answer := ask(t, scheme+address, client)
		if answer.Err != nil || !answer.Leaf.Equal(leaf.Cert) {
			t.Errorf("%s: %v", scheme, answer.Err)
		}
	}
}

func TestUnverified(t *testing.T) {
	_, intermediate, leaf := certtest.Hierarchy(t)
	other, _, _ := certtest.Hierarchy(t)
	config := &tls.Config{Certificates: []tls.Certificate{leaf.TLS(intermediate)}}
	answer := ask(t, server(t, config, false), &tls.Config{RootCAs: certs.Pool(certtest.Bundle([]*certtest.Pair{other})...)})
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](answer.Err); !unknown || !answer.Leaf.Equal(leaf.Cert) {
		t.Errorf("under another root: %v", answer.Err)
	}
}

func TestClientCertificate(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := &tls.Config{Certificates: []tls.Certificate{leaf.TLS(intermediate)}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: version}
		answer := ask(t, server(t, config, false), &tls.Config{RootCAs: certs.Pool(certtest.Bundle([]*certtest.Pair{root})...)})
		if !answer.Leaf.Equal(leaf.Cert) {
			t.Errorf("%s: another certificate", tls.VersionName(version))
		}
	}
}

func TestSilent(t *testing.T) {
	silent := audittest.Accept(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	for _, scheme := range []string{"", "postgres://"} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := served.Ask(ctx, scheme+silent, &tls.Config{RootCAs: certs.Pool()})
		cancel()
		if err == nil {
			t.Errorf("%s: a silent server has answered", scheme)
		}
	}
}

func TestErrors(t *testing.T) {
	foreign := audittest.Accept(t, func(c net.Conn) { _, _ = io.WriteString(c, "220 mail ESMTP\r\n"); _, _ = io.Copy(io.Discard, c) })
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	empty := &tls.Config{RootCAs: certs.Pool()}
	for address, want := range map[string]string{
		foreign:                 "shaking hands: tls: first record does not look like a TLS handshake",
		gone.Addr().String():    "connecting: connect: connection refused",
		"nonsense":              "an address is HOST:PORT or SCHEME://HOST[:PORT]",
		"postgres://" + foreign: "it does not speak PostgreSQL",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), audittest.Patience)
		_, err := served.Ask(ctx, address, empty)
		cancel()
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", address, err, want)
		}
		if (served.Check(address) == nil) != (address != "nonsense") {
			t.Errorf("Check(%s) = %v", address, served.Check(address))
		}
	}
	if _, err := served.Ask(t.Context(), foreign, &tls.Config{}); err == nil {
		t.Error("the roots of the system were taken")
	}
}
