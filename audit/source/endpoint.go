package source

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/endpoint"
	"github.com/artstore/artstore-pki/audit/internal/tlsread"
	"github.com/artstore/artstore-pki/internal/certs"
)

// answer connects to a server. It returns its certificate, the authorities that it sends, and
// the certificates that it has for other clients; or one subject with an error.
func (t Targets) answer(c *collection, name string) []audit.Subject {
	s := audit.Subject{Kind: audit.KindEndpoint, Place: endpoint.Place(name)}
	host, port, err := endpoint.Parse(name)
	if err != nil {
		s.Err = err
		return []audit.Subject{s}
	}
	s.Host, s.Bundle = cmp.Or(t.ServerName, host), c.bundle
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	turn := &slot{room: c.endpointSem, timeout: t.Timeout, clock: time.AfterFunc(t.Timeout, func() { cancel(context.DeadlineExceeded) })}
	defer turn.end()
	d := endpointRequest{net.JoinHostPort(host, port), endpoint.UpgradeOf(name), t.config(s.Host), turn.begin}
	chain, state, err := d.presented(ctx)
	var refused []audit.Subject
	if len(chain) > 0 {
		for _, x := range chain {
			c.send(&s, cert.FromX509(x))
		}
		s.TLS, s.Err = state, unproven(err)
	} else {
		var sent tlsread.Answer
		if refusedTLS(ctx, err) {
			turn.again()
			sent, err = d.readInPart(ctx, err)
		}
		s.Err = endpoint.Hinted(name, err, unreachable(ctx, err, t.Timeout))
		if sent.Version == 0 {
			return []audit.Subject{s}
		}
		s.TLS = &tls.ConnectionState{Version: sent.Version, CipherSuite: sent.Suite}
		refused = c.sendAll(&s, sent.Certificates)
	}
	var others []audit.Subject
	if !t.Fast {
		turn.again()
		others = d.others(ctx, c, &s)
	}
	return append(withAuthorities(&s, refused), others...)
}

// send adds the next certificate that a server has sent: its own first, then the chain.
func (c *collection) send(s *audit.Subject, sent *cert.Certificate) {
	if sent.IsCA {
		sent = c.Known.Canonical(sent)
	}
	if s.Order = append(s.Order, sent); s.Cert == nil {
		s.Cert = sent
	} else {
		s.Chain = append(s.Chain, sent)
	}
}

// sendAll adds certificates that were read without a handshake. If the first one cannot be
// parsed, its error is that of the subject. Later ones become subjects of their own.
func (c *collection) sendAll(s *audit.Subject, chain [][]byte) (refused []audit.Subject) {
	for i, der := range chain {
		switch cert, err := c.Known.Parse(der); {
		case err == nil:
			c.send(s, cert)
		case i == 0:
			s.Cert, s.Err = cert, cmp.Or(s.Err, err)
		default:
			refused = append(refused, audit.Subject{Kind: audit.KindEndpoint, Place: s.Place, Cert: cert, Err: err})
		}
	}
	return refused
}

// withAuthorities returns the subject of a server, and a subject for each authority that it
// sends. Clients ignore other certificates, so these have no row.
func withAuthorities(s *audit.Subject, refused []audit.Subject) []audit.Subject {
	out := []audit.Subject{*s}
	for _, sent := range s.Chain {
		if sent.IsCA {
			out = append(out, audit.Subject{Kind: audit.KindEndpoint, Place: s.Place, Cert: sent, SentAbove: true})
		}
	}
	return append(out, refused...)
}

// config returns the configuration of a handshake that verifies the server. Without a bundle
// the pool is empty, and not nil, which would mean the roots of the operating system:
// each server is refused, and its certificates are read from the error.
func (t Targets) config(name string) *tls.Config {
	return &tls.Config{
		ServerName: name, MinVersion: tls.VersionTLS12, Certificates: t.Certificates,
		RootCAs: certs.Pool(t.Bundle...),
	}
}

// endpointRequest is one connection.
type endpointRequest struct {
	address     string
	upgrade     func(net.Conn) error // nil for TLS from the first byte
	config      *tls.Config
	onFirstByte func() // is called once, when the first bytes of the server arrive
}

// slot is a place among the servers that are talked to at a time. A server gets it with its
// first bytes, so silent servers take none. The timeout does not run while a server waits
// for a slot, because that is not its fault.
type slot struct {
	room    chan struct{} // has a place for each slot
	timeout time.Duration
	clock   *time.Timer // cancels the request
	begun   bool
}

// begin takes a slot, and starts the timeout again. Later calls do nothing.
func (t *slot) begin() {
	if t.begun {
		return
	}
	t.clock.Stop()
	t.room <- struct{}{} // it becomes free, because the timeout runs for all that have one
	t.begun = true
	t.clock.Reset(t.timeout)
}

// again starts the timeout again, for another hello to the same server.
func (t *slot) again() { t.clock.Reset(t.timeout) }

// end stops the timeout and gives the slot back.
func (t *slot) end() {
	t.clock.Stop()
	if t.begun {
		<-t.room
	}
}

// firstByteConn is a connection that calls a function when the first bytes arrive. One
// goroutine reads.
type firstByteConn struct {
	net.Conn
	onFirstByte func()        // nil once it was called
	kept        *bytes.Buffer // gets the first maxKept bytes that are read; may be nil
}

// maxKept is more than crypto/tls reads of a handshake, in bytes.
const maxKept = 512 << 10

// Read implements [net.Conn].

func (l *firstByteConn) Read(b []byte) (n int, err error) {
	n, err = l.Conn.Read(b)
	if n > 0 && l.onFirstByte != nil {
		l.onFirstByte()
		l.onFirstByte = nil
	}
	if l.kept != nil && l.kept.Len() < maxKept {
		_, _ = l.kept.Write(b[:n]) // never fails
	}
	return n, err
}

// refusedError is the error of the exchange before TLS.
type refusedError struct{ err error }

// Error returns the text for the row.
func (r *refusedError) Error() string { return r.err.Error() }

// connect returns a connection on which TLS begins next.
func (d endpointRequest) connect(ctx context.Context) (*firstByteConn, error) {
	plain, err := (&net.Dialer{}).DialContext(ctx, "tcp", d.address)
	if err != nil {
		return nil, err
	}
	conn := &firstByteConn{Conn: plain, onFirstByte: d.onFirstByte}
	if err := endpoint.StartTLS(ctx, conn, d.upgrade); err != nil {
		_ = conn.Close() // nothing was sent that could be lost
		return nil, &refusedError{err}
	}
	return conn, nil
}

// presented does a handshake, and returns the certificates of the server. Verification stays
// on: the certificates of a server that fails it are in the error of crypto/tls, and
// nothing is sent to that server. If crypto/tls has no certificates, the error is an
// [unfinishedError] with the bytes that the server sent.
func (d endpointRequest) presented(ctx context.Context) ([]*x509.Certificate, *tls.ConnectionState, error) {
	conn, err := d.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = conn.Close() }() // nothing was sent that could be lost
	var seen []*x509.Certificate
	var keyLog bytes.Buffer
	conn.kept, d.config.KeyLogWriter = &bytes.Buffer{}, &keyLog
	d.config.VerifyConnection = func(state tls.ConnectionState) error {
		seen = state.PeerCertificates // a server of TLS 1.2 may still end the handshake after this
		return nil
	}
	client := tls.Client(conn, d.config)
	err = client.HandshakeContext(ctx)
	state := client.ConnectionState()
	if refused, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return refused.UnverifiedCertificates, &state, nil
	}
	if err != nil && seen == nil {
		err = &unfinishedError{err, conn.kept.Bytes(), keyLog.Bytes()}
	}
	return seen, &state, err
}

// unproven returns an error if crypto/tls ended a handshake after it had verified the
// certificate: then the server did not sign with the key of that certificate, which
// anybody can copy. It returns nil if the server or the network ended the handshake, as
// a server of TLS 1.2 does that asks for a client certificate.
func unproven(err error) error {
	_, network := errors.AsType[*net.OpError](err)
	if err == nil || network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("it did not prove that it has the key of its certificate: %w", err)
}

// unfinishedError is the error of a handshake that ended before crypto/tls had a certificate.
type unfinishedError struct {
	err          error
	sent, keyLog []byte
}

func (u *unfinishedError) Error() string { return u.err.Error() }
func (u *unfinishedError) Unwrap() error { return u.err }

// Sent returns the bytes that the server sent.
func (u *unfinishedError) Sent() []byte { return u.sent }

// noAnswerError is the timeout after which a server had not answered.
type noAnswerError time.Duration

func (u noAnswerError) Error() string { return fmt.Sprintf("no answer within %s", time.Duration(u)) }
func (u noAnswerError) Unwrap() error { return context.DeadlineExceeded }

// unreachable returns the error of a row without a certificate, in one clause.
func unreachable(ctx context.Context, err error, timeout time.Duration) error {
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return noAnswerError(timeout)
	}
	if _, ok := errors.AsType[*refusedError](err); ok {
		return err
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return tlsread.ErrNotTLS
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return fmt.Errorf("connecting: %w", op.Err)
	}
	if err == nil {
		return tlsread.ErrNoCertificate
	}
	return fmt.Errorf("shaking hands: %w", err)
}
