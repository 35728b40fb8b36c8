// Package served asks a server which certificate it serves. It is for programs that have replaced
// a certificate and want to know whether it is in use.
//
//	answer, err := served.Ask(ctx, "postgres://localhost:5432", &tls.Config{ServerName: "db", RootCAs: roots})
//
// An address is HOST:PORT or a URL, as for the command audit: with postgres, mysql, smtp, imap,
// pop3, ldap and ftp, TLS begins after a plaintext exchange.
//
// Invariants:
//
//   - Verification stays on. The certificate of a server that fails it is in the answer all the
//     same, and nothing is sent to that server (TestUnverified).
//   - A server that asks for a client certificate, and gets none, is answered for too
//     (TestClientCertificate).
//   - The end of ctx ends a server that says nothing (TestSilent).
package served

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"

	"github.com/artstore/artstore-pki/audit/internal/endpoint"
)

// Answer is what a server has served.
type Answer struct {
	Leaf *x509.Certificate
	// Err says why the server was not verified, or ended the handshake after it had sent its
	// certificate. nil if the server has proved that it has the key.
	Err error
}

// Check returns an error if address is none.
func Check(address string) error {
	if _, _, err := endpoint.Parse(address); err != nil {
		return err
	}
	return nil
}

// Ask connects to a server and returns its certificate. config has the roots, the name and, for
// servers that want one, a client certificate; RootCAs must be set, because the roots of the
// operating system are not meant. An empty ServerName means the host of the address. The
// error says why there is no certificate; it does not quote the address.
func Ask(ctx context.Context, address string, config *tls.Config) (Answer, error) {
	host, port, err := endpoint.Parse(address)
	if err != nil {
		return Answer{}, err
	}
	if config.RootCAs == nil {
		return Answer{}, errors.New("asking a server: no roots to verify it by")
	}
	config = config.Clone()
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	if config.ServerName == "" {
		config.ServerName = host
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return Answer{}, dialError(err)
	}
	defer func() { _ = conn.Close() }() // nothing was sent that could be lost
	if err := endpoint.StartTLS(ctx, conn, endpoint.UpgradeOf(address)); err != nil {
		return Answer{}, err
	}
	answer, err := handshake(ctx, conn, config)
	if err != nil {
		return Answer{}, endpoint.Hinted(address, err, fmt.Errorf("shaking hands: %w", err))
	}
	return answer, nil
}

// handshake returns the certificate of the other side, also if the handshake fails after that has
// come.
func handshake(ctx context.Context, conn net.Conn, config *tls.Config) (Answer, error) {
	var seen []*x509.Certificate
	config.VerifyConnection = func(state tls.ConnectionState) error {
		seen = state.PeerCertificates // a server of TLS 1.2 may still end the handshake after this
		return nil
	}
	err := tls.Client(conn, config).HandshakeContext(ctx)
	if refused, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		seen, err = refused.UnverifiedCertificates, refused.Err
	}
	if len(seen) == 0 {
		return Answer{}, err
	}
	return Answer{seen[0], err}, nil
}

// dialError leaves out the address, which the caller names.
func dialError(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return fmt.Errorf("connecting: %w", op.Err)
	}
	return fmt.Errorf("connecting: %w", err)
}
