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

// ClientTLSConfig returns a configuration for libraries that take one once and dial
// themselves. It is for the server with the name serverName, a DNS name or an address,
// which cannot be changed in it. At each handshake the certificate in effect is used, and
// the server is verified by the bundle and the revocation lists in effect.
//
// A configuration alone cannot do three things. It does not know a root that is added
// later: get a new one after each change ([Identity.Subscribe]) or for each dial. It
// resumes no sessions. Its connections are not drained. If a library takes a dialer,
// [Transport.DialTLSContext] does all three.
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

// verifyServer verifies the chain of a server by the bundle in effect now. It runs after
// the verification of crypto/tls, so it can only refuse more.
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

// DialTLSContext connects to addr, host:port, with the generation in effect, for
// protocols other than HTTP. The certificate of the server must have the host as a name.
// No ALPN protocol is offered; [Transport.Handshake] can offer some.
//
// TLS 1.3 cannot change the certificate of an open connection. So the connection is cut
// when its generation is superseded and Config.DrainTimeout has passed or the leaf
// expires. The caller then dials again.
func (t *Transport) DialTLSContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return t.dialPooled(func(p *pool) (*tls.Conn, error) { return p.dialTLS(ctx, network, addr, nil) })
}

// Handshake is [Transport.DialTLSContext] over an existing connection, which it closes on
// errors. The certificate of the server must have the name serverName, a DNS name or an
// address.
func (t *Transport) Handshake(ctx context.Context, raw net.Conn, serverName string, nextProtos ...string) (*tls.Conn, error) {
	c, err := t.dialPooled(func(p *pool) (*tls.Conn, error) { return p.handshake(ctx, raw, serverName, nextProtos) })
	if err != nil {
		_ = raw.Close() // again, if the handshake has failed
	}
	return c, err
}

// dialPooled calls dial with the pool of the generation in effect. The connection holds
// the pool like a request, until it is closed.
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
