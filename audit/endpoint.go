package audit

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// parseAddress splits HOST:PORT or a URL with one of our schemes. What looks like neither is an error.
func parseAddress(text string) (host, port string, err error) {
	if strings.Contains(text, "://") {
		return parseURL(text)
	}
	host, port, err = net.SplitHostPort(text)
	if err != nil || host == "" || strings.ContainsRune(host, '/') {
		return "", "", fmt.Errorf("address %q: want HOST:PORT", text)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", "", fmt.Errorf("address %q: %q is no port", text, port)
	}
	return host, port, nil
}

func (t Targets) look(c *collection, address string) Subject {
	s := Subject{Kind: kindEndpoint, Place: endpointPlace(address)}
	host, port, err := parseAddress(address)
	if err != nil {
		s.Err = err
		return s
	}
	s.Host = cmp.Or(t.ServerName, host)
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	turn := &turn{room: c.talks, timeout: t.Timeout, clock: time.AfterFunc(t.Timeout, func() { cancel(context.DeadlineExceeded) })}
	defer turn.end()
	d := dial{net.JoinHostPort(host, port), upgradeOf(address), t.config(s.Host), turn.begin}
	chain, state, err := d.shown(ctx)
	if len(chain) == 0 {
		s.Err = unreachable(ctx, err, t.Timeout)
		return s
	}
	for _, x := range chain {
		sent := fromX509(x)
		if sent.isCA {
			sent = c.known.one(sent)
		}
		s.order = append(s.order, sent)
	}
	s.Cert, s.Chain, s.TLS, s.Bundle = s.order[0], s.order[1:], state, c.bundle
	return s
}

func (t Targets) config(name string) *tls.Config {
	return &tls.Config{
		ServerName: name, MinVersion: tls.VersionTLS12, Certificates: t.Certificates,
		// Without a bundle this is an empty pool: every server is refused, and
		// its certificates are read from the refusal.
		RootCAs: pool(t.Bundle),
	}
}

// dial is one connection.
type dial struct {
	address string
	upgrade func(net.Conn) error // nil for TLS from the first byte
	config  *tls.Config
	heard   func() // is called when the server says something for the first time
}

// turn is a server's: it begins with the first word of the server. What waits for
// a word has none, and takes no part of the processor; what waits for its turn
// does so off the clock, for that is not the server's fault.
type turn struct {
	room    chan struct{}
	timeout time.Duration
	clock   *time.Timer
	begun   bool
}

func (t *turn) begin() {
	t.clock.Stop()
	t.room <- struct{}{} // for all that have a turn the clock is running
	t.begun = true
	t.clock.Reset(t.timeout)
}

func (t *turn) end() {
	t.clock.Stop()
	if t.begun {
		<-t.room
	}
}

// listening is a connection that tells when something has come. One goroutine reads.
type listening struct {
	net.Conn
	heard func() // nil once it was called
}

func (l *listening) Read(b []byte) (n int, err error) {
	n, err = l.Conn.Read(b)
	if n > 0 && l.heard != nil {
		l.heard()
		l.heard = nil
	}
	return n, err
}

// refusal is why a server did not get as far as TLS.
type refusal struct{ err error }

func (r *refusal) Error() string { return r.err.Error() }

// shown returns what a server shows about itself. Verification stays on: a
// server that fails it is read from the error, and nothing is sent to it.
func (d dial) shown(ctx context.Context) ([]*x509.Certificate, *tls.ConnectionState, error) {
	plain, err := (&net.Dialer{}).DialContext(ctx, "tcp", d.address)
	if err != nil {
		return nil, nil, err
	}
	conn := &listening{plain, d.heard}
	defer func() { _ = conn.Close() }() // nothing was sent that could be lost
	if err := starttls(ctx, conn, d.upgrade); err != nil {
		return nil, nil, &refusal{err}
	}
	var seen []*x509.Certificate
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
	return seen, &state, err
}

// unreachable says in one clause why there was no certificate.
func unreachable(ctx context.Context, err error, timeout time.Duration) error {
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s", timeout)
	}
	if _, ok := errors.AsType[*refusal](err); ok {
		return err
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return errors.New("it does not speak TLS")
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return fmt.Errorf("connecting: %w", op.Err)
	}
	if err == nil {
		return errors.New("it showed no certificate")
	}
	return fmt.Errorf("shaking hands: %w", err)
}
