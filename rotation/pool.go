package rotation

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// alertWait is how long explain waits for net/http to close a connection that failed.
const alertWait = time.Second

// sessionCache is of how many servers a pool keeps a session ticket.
const sessionCache = 64

// pool is what one Transport has of one generation: two http.Transports, their session
// cache and every net.Conn that they dialled. The connections are tracked, because
// net/http dials in the background: a dial that ends after the pool was closed would
// otherwise leave a connection that is never closed.
type pool struct {
	transport *Transport
	gen       *Generation
	bundle    *bundle // by which servers are verified
	http      *http.Transport
	upgrades  *http.Transport // for requests that leave HTTP: they cannot go over HTTP/2 (RFC 9113 §8.2.2)
	tls       *tls.Config
	requests  int           // under way, and raw connections; guarded by liveGeneration.mu
	draining  bool          // it is outdated; guarded by liveGeneration.mu
	drained   chan struct{} // closed when the pool is outdated and nothing holds it any more

	mu     sync.Mutex // guards the fields below
	conns  map[*conn]struct{}
	latest map[string]*tls.Conn // the last connection to each address, which may be closed
	closed bool
}

// handshakeTimeoutError is a net.Error like that of net/http for a handshake that takes
// too long. It is no context.DeadlineExceeded, because a caller would take that for its
// own deadline.
type handshakeTimeoutError struct{}

func (handshakeTimeoutError) Error() string   { return "rotation: TLS handshake timeout" }
func (handshakeTimeoutError) Timeout() bool   { return true }
func (handshakeTimeoutError) Temporary() bool { return true }

// clientConfig returns the part of a configuration that is the same for all connections
// of a pool. handshake adds the name of the server and the bundle.
func clientConfig(g *Generation, o TransportOptions) *tls.Config {
	return &tls.Config{
		MinVersion:                  o.MinVersion, // parsed: TLS 1.2 at least
		CipherSuites:                o.CipherSuites,
		DynamicRecordSizingDisabled: wholeRecords,
		// Not Certificates: crypto/tls would send none of them to a server whose
		// certificate_authorities (RFC 8446 §4.2.4) do not name our issuer, and the
		// server would complain about a missing certificate.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &g.cert, nil },
		// A ticket stands for the certificate that it was issued to, so it must not be
		// used by the next generation.
		ClientSessionCache: tls.NewLRUClientSessionCache(sessionCache),
	}
}

var errHandshakeTimeout net.Error = handshakeTimeoutError{}

func newPool(t *Transport, g *Generation) *pool {
	o := t.opts
	p := &pool{
		transport: t, gen: g, bundle: t.bundle(g), tls: clientConfig(g, o), conns: map[*conn]struct{}{}, latest: map[string]*tls.Conn{}, drained: make(chan struct{}),
	}
	p.http = p.newHTTP(!o.HTTP1Only)
	p.upgrades = p.http
	if !o.HTTP1Only {
		p.upgrades = p.newHTTP(false)
	}
	return p
}

// newHTTP returns a transport that offers HTTP/2, or one that does not. A single one
// cannot serve both kinds of requests: net/http chooses the protocol for each request
// only if it makes the handshake itself.
func (p *pool) newHTTP(http2 bool) *http.Transport {
	o := p.transport.opts
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(http2)
	protos := []string{"http/1.1"}
	if http2 {
		protos = []string{"h2", "http/1.1"}
	}
	return &http.Transport{
		// A clone, because net/http writes to it with the first request, while handshakes copy p.tls.
		TLSClientConfig:     p.tls.Clone(),
		TLSHandshakeTimeout: handshakeTimeout,
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := p.dialTLS(ctx, network, addr, protos)
			if err != nil {
				return nil, err
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			if len(p.latest) >= sessionCache {
				clear(p.latest) // only the text of errors depends on it
			}
			p.latest[addr] = c
			return c, nil
		},
		MaxConnsPerHost: o.MaxConnsPerHost, MaxIdleConnsPerHost: o.idlePerHost(),
		IdleConnTimeout:       o.IdleConnTimeout,
		ResponseHeaderTimeout: o.ResponseHeaderTimeout, ExpectContinueTimeout: o.ExpectContinueTimeout,
		Protocols: &protocols,
	}
}

// roundTrip sends one request, over HTTP/1.1 if it asks for an upgrade.
func (p *pool) roundTrip(r *http.Request) (*http.Response, error) {
	over := p.http
	if r.Header.Get("Upgrade") != "" {
		over = p.upgrades
	}
	resp, err := over.RoundTrip(r)
	if err != nil {
		err = p.explain(r, err)
	}
	return resp, err
}

// notEstablished is the text of net/http for an HTTP/2 connection that ended before its
// first request. It hides the reason, and there is no error value to match.
const notEstablished = "http2: client conn could not be established"

// explain adds to err the alert with which the server ended the connection. A TLS 1.3
// server refuses a certificate after the client has finished its handshake, so net/http
// gets the alert while it reads, and does not put it into the error of the request.
func (p *pool) explain(r *http.Request, err error) error {
	if err.Error() != notEstablished {
		return err
	}
	p.mu.Lock()
	c := p.latest[net.JoinHostPort(r.URL.Hostname(), cmp.Or(r.URL.Port(), "443"))]
	p.mu.Unlock()
	if c == nil {
		return err
	}
	select {
	case <-c.NetConn().(*conn).gone: //nolint:forcetypeassert // handshake made it
	case <-time.After(alertWait): // c is a later connection, which is open
		return err
	case <-r.Context().Done():
		return err
	}
	// crypto/tls returns a received alert from every later Read.
	if _, alert := c.Read(make([]byte, 1)); alert != nil && !errors.Is(alert, net.ErrClosed) {
		return fmt.Errorf("%w: %w", err, alert)
	}
	return err
}

func (p *pool) closeIdle() {
	p.http.CloseIdleConnections()
	p.upgrades.CloseIdleConnections()
}

func (p *pool) dialTLS(ctx context.Context, network, addr string, protos []string) (*tls.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	raw, err := p.transport.dialRaw(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return p.handshake(ctx, raw, host, protos)
}

// handshake makes raw a connection of this pool, and closes it on errors. name is the
// name that the certificate of the server must have.
func (p *pool) handshake(ctx context.Context, raw net.Conn, name string, protos []string) (*tls.Conn, error) {
	if fixed := p.transport.opts.ServerName; fixed != "" {
		name = fixed
	}
	if name == "" { // crypto/tls refuses to go on without one, too
		_ = raw.Close() // unused
		return nil, errors.New("rotation: the name of the server is missing")
	}
	c, err := p.track(raw)
	if err != nil {
		return nil, err
	}
	conf := p.tls.Clone()
	conf.ServerName, conf.NextProtos, conf.RootCAs = name, protos, p.bundle.pool
	conf.VerifyConnection = func(cs tls.ConnectionState) error { return p.authorizeServer(cs) }
	secure := tls.Client(c, conf)
	ctx, cancel := context.WithTimeoutCause(ctx, handshakeTimeout, errHandshakeTimeout)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = c.Close() // the handshake failed already
		if errors.Is(context.Cause(ctx), errHandshakeTimeout) {
			return nil, errHandshakeTimeout
		}
		return nil, err
	}
	chains := secure.ConnectionState().VerifiedChains
	p.mu.Lock()
	c.chains = chains
	p.mu.Unlock()
	// cutRevoked may have run before c had its chains, with lists that are newer than those
	// of the handshake.
	if err := p.transport.bundle(p.transport.id.Current()).checkRevoked(chains); err != nil {
		_ = c.Close() // unused
		return nil, err
	}
	return secure, nil
}

// authorizeServer judges a server whose chain and name were verified, in full and in
// resumed handshakes.
func (p *pool) authorizeServer(cs tls.ConnectionState) error {
	if err := p.bundle.checkRevoked(cs.VerifiedChains); err != nil {
		return err
	}
	if authorize := p.transport.opts.AuthorizeServer; authorize != nil {
		return authorize(cs)
	}
	return nil
}

// track adds a connection to the pool. If the pool was closed meanwhile, it closes the
// connection and returns [ErrRetired].
func (p *pool) track(raw net.Conn) (*conn, error) {
	c := &conn{Conn: raw, pool: p, gone: make(chan struct{})}
	p.mu.Lock()
	late := p.closed
	if !late {
		p.conns[c] = struct{}{}
	}
	p.mu.Unlock()
	if late {
		_ = raw.Close() // nothing was sent on it
		return nil, ErrRetired
	}
	return c, nil
}

// shutdown closes idle connections as HTTP wants it, and then cuts the rest, whose number it
// returns. The second step is needed even if nothing holds the pool: an HTTP/2 connection
// whose last stream ends in this moment does not count as idle yet.
func (p *pool) shutdown() (cut int) {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.closeIdle()
	for _, c := range p.connections() {
		_ = c.Close() // over in any case
		cut++
	}
	return cut
}

func (p *pool) connections() []*conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*conn, 0, len(p.conns))
	for c := range p.conns {
		all = append(all, c)
	}
	return all
}

// conn is a connection of a pool, under the *tls.Conn. Its Close takes it off the pool.
type conn struct {
	net.Conn
	pool    *pool
	chains  [][]*x509.Certificate // of the server, nil before the handshake has ended; guarded by pool.mu
	release func()                // ends the request that a raw connection counts as; nil for others
	gone    chan struct{}         // closed at the end of the first Close
}

func (c *conn) peerChains() [][]*x509.Certificate {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	return c.chains
}

// NetConn returns the connection that the dialer made, like the method of tls.Conn.
func (c *conn) NetConn() net.Conn { return c.Conn }

func (c *conn) Close() error {
	c.pool.mu.Lock()
	if _, open := c.pool.conns[c]; open {
		delete(c.pool.conns, c)
		defer close(c.gone)
	}
	release := c.release
	c.pool.mu.Unlock()
	err := c.Conn.Close()
	if release != nil {
		release()
	}
	return err
}
