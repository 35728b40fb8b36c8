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

// answer is what a server shows: its certificate, the authorities that it sends,
// and further certificates that it has for other clients.
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

// send adds a certificate that a server sends after those before it.
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

// sendAll adds what was read without a handshake. The first one that cannot be
// parsed is the subject's, and those behind it are subjects of their own.
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

// withAuthorities are the subject and those of the authorities that it sends; what
// else is sent, no client looks at.
func withAuthorities(s *audit.Subject, refused []audit.Subject) []audit.Subject {
	out := []audit.Subject{*s}
	for _, sent := range s.Chain {
		if sent.IsCA {
			out = append(out, audit.Subject{Kind: audit.KindEndpoint, Place: s.Place, Cert: sent, SentAbove: true})
		}
	}
	return append(out, refused...)
}

func (t Targets) config(name string) *tls.Config {
	return &tls.Config{
		ServerName: name, MinVersion: tls.VersionTLS12, Certificates: t.Certificates,
		// Without a bundle this is an empty pool: every server is refused, and
		// its certificates are read from the refusal.
		RootCAs: certs.Pool(t.Bundle...),
	}
}

// endpointRequest is one connection.
type endpointRequest struct {
	address     string
	upgrade     func(net.Conn) error // nil for TLS from the first byte
	config      *tls.Config
	onFirstByte func() // is called when the server says something for the first time
}

// slot is a server's: it begins with the first word of the server. What waits for
// a word has none, and takes no part of the processor; what waits for its turn
// does so off the clock, for that is not the server's fault.
type slot struct {
	room    chan struct{}
	timeout time.Duration
	clock   *time.Timer
	begun   bool
}

func (t *slot) begin() {
	if t.begun {
		return
	}
	t.clock.Stop()
	t.room <- struct{}{} // for all that have a turn the clock is running
	t.begun = true
	t.clock.Reset(t.timeout)
}

// again gives the server the time for another question.
func (t *slot) again() { t.clock.Reset(t.timeout) }

func (t *slot) end() {
	t.clock.Stop()
	if t.begun {
		<-t.room
	}
}

// firstByteConn is a connection that tells when something has come. One goroutine reads.
type firstByteConn struct {
	net.Conn
	onFirstByte func()        // nil once it was called
	kept        *bytes.Buffer // gets what is read, up to maxKept bytes; nil: it is not kept
}

// maxKept is more than crypto/tls reads before it gives up.
const maxKept = 512 << 10

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

// refusedError is why a server did not get as far as TLS.
type refusedError struct{ err error }

func (r *refusedError) Error() string { return r.err.Error() }

// connect is a connection on which TLS begins.
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

// presented returns what a server shows about itself. Verification stays on: a
// server that fails it is read from the error, and nothing is sent to it. Where
// crypto/tls has an error in place of certificates, what the server sent is in it.
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
		seen = state.PeerCertificates // a server may still end the handshake of TLS 1.2
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

// unfinishedError is a handshake that ended before crypto/tls had a certificate of the server.
type unfinishedError struct {
	err          error
	sent, keyLog []byte
}

func (u *unfinishedError) Error() string { return u.err.Error() }
func (u *unfinishedError) Unwrap() error { return u.err }

// Sent is what the server sent until then.
func (u *unfinishedError) Sent() []byte { return u.sent }

// noAnswerError is how long a server was waited for.
type noAnswerError time.Duration

func (u noAnswerError) Error() string { return fmt.Sprintf("no answer within %s", time.Duration(u)) }
func (u noAnswerError) Unwrap() error { return context.DeadlineExceeded }

// unreachable says in one clause why there was no certificate.
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
