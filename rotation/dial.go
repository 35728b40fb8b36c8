package rotation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// ClientTLSConfig returns a configuration for libraries that want one once and dial
// themselves, bound to serverName, a DNS name or an address: another one cannot
// be put into its place. Certificate and key, roots that are removed and
// revocations are those in effect at each handshake.
//
// What a bare configuration cannot do: a root that is added later is not known
// to it, so ask for a new one after each change ([Identity.Subscribe]) or for
// each dial; it resumes no sessions; and nobody drains its connections. Where a
// library takes a dialer, [Transport.DialTLSContext] does all three.
func (id *Identity) ClientTLSConfig(serverName string) (*tls.Config, error) {
	if serverName == "" {
		return nil, errors.New("building client configuration: the name of the server is missing")
	}
	if usages(id.Current().Leaf())&usageClient == 0 {
		return nil, errors.New("building client configuration: the leaf lacks clientAuth")
	}
	id.requireUsage(usageClient)
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		ServerName:                  serverName,
		RootCAs:                     id.Current().pool,
		DynamicRecordSizingDisabled: wholeRecords,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &id.Current().cert, nil
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			return id.Current().verifyServer(cs.PeerCertificates, serverName)
		},
	}, nil
}

// verifyServer verifies a server's chain as crypto/tls does, by the bundle in
// effect now. It follows that verification and can only narrow it.
func (g *Generation) verifyServer(peer []*x509.Certificate, name string) error {
	if len(peer) == 0 {
		return errors.New("the server has no certificate")
	}
	chains, err := verify(peer, x509.VerifyOptions{Roots: g.pool, DNSName: name, CurrentTime: time.Now()})
	if err != nil {
		return err
	}
	return g.checkRevoked(chains)
}

// DialTLSContext connects to addr, host:port, under the generation in effect,
// for protocols that are not HTTP. The server must have the host as a name. No
// ALPN protocol is offered; [Transport.Handshake] can.
//
// The connection keeps that generation's identity for its whole life, as TLS 1.3
// cannot change one: superseded, it may go on until Config.DrainTimeout has passed or
// the leaf expires, and is then cut. The caller dials again.
func (t *Transport) DialTLSContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return t.dialPooled(func(p *pool) (*tls.Conn, error) { return p.dialTLS(ctx, network, addr, nil) })
}

// Handshake is [Transport.DialTLSContext] over a connection that is there
// already, which it takes over and closes on errors. The server must have the
// name serverName, a DNS name or an address.
func (t *Transport) Handshake(ctx context.Context, raw net.Conn, serverName string, nextProtos ...string) (*tls.Conn, error) {
	c, err := t.dialPooled(func(p *pool) (*tls.Conn, error) { return p.handshake(ctx, raw, serverName, nextProtos) })
	if err != nil {
		_ = raw.Close() // also when it never came to a handshake
	}
	return c, err
}

// dialPooled runs dial with the pool of the generation in effect; the connection holds it like a request does.
func (t *Transport) dialPooled(dial func(*pool) (*tls.Conn, error)) (*tls.Conn, error) {
	n, p, err := t.acquireCurrent()
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	release := sync.OnceFunc(func() { n.release(p) })
	c, err := dial(p)
	if err != nil {
		release()
		return nil, fmt.Errorf("connecting: %w", err)
	}
	owned := c.NetConn().(*conn) //nolint:forcetypeassert // handshake made it
	p.mu.Lock()
	_, open := p.conns[owned]
	owned.release = release
	p.mu.Unlock()
	if !open { // cut between the handshake and here
		release()
	}
	return c, nil
}
