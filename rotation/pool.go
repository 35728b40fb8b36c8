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

// alertWait is for net/http to close a connection that it has given up.
const alertWait = time.Second

// sessionCache is how many servers a generation remembers a ticket of.
const sessionCache = 64

// pool is what one Transport owns of one generation: an http.Transport, its
// session cache and every net.Conn it dialled. A reference count alone is not
// enough: net/http dials in the background, and a dial that ends after the pool
// closed would leave a connection that nobody closes.
type pool struct {
	transport *Transport
	gen       *Generation
	bundle    *bundle // by which servers are verified
	http      *http.Transport
	upgrades  *http.Transport // for requests that leave HTTP: they cannot go over HTTP/2 (RFC 9113 §8.2.2)
	tls       *tls.Config
	requests  int           // and raw connections; guarded by liveGeneration.mu
	draining  bool          // outdated; guarded by liveGeneration.mu
	drained   chan struct{} // closed when the pool is outdated and nothing holds it any more

	mu     sync.Mutex
	conns  map[*conn]struct{}
	latest map[string]*tls.Conn // the last one to each address, which may be over
	closed bool
}

// handshakeTimeoutError is what net/http answers in this case too: a net.Error that
// is no context.DeadlineExceeded, which callers would take for a deadline of theirs.
type handshakeTimeoutError struct{}

func (handshakeTimeoutError) Error() string   { return "rotation: TLS handshake timeout" }
func (handshakeTimeoutError) Timeout() bool   { return true }
func (handshakeTimeoutError) Temporary() bool { return true }

// clientConfig lacks what is set per connection: the server's name, so that the
// standard library checks names and addresses, and the bundle that verifies it.
func clientConfig(g *Generation, o TransportOptions) *tls.Config {
	return &tls.Config{
		MinVersion:                  o.MinVersion, // parsed: TLS 1.2 at least
		CipherSuites:                o.CipherSuites,
		DynamicRecordSizingDisabled: wholeRecords,
		// Not Certificates: crypto/tls would send none to a server whose hints do
		// not name our issuer, and the server's refusal would then blame the wrong thing.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &g.cert, nil },
		// A ticket resumes the identity it was issued to: it must not outlive the generation.
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

// newHTTP keeps connections of one kind: net/http could choose the protocol for
// each request only where it makes the handshake itself.
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
		// Its own: net/http writes its protocols into it with the first request, and handshakes copy p.tls meanwhile.
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
				clear(p.latest) // it is for errors only
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

// roundTrip sends one request over connections of its kind.
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

// notEstablished is what net/http says, in place of the reason, when an HTTP/2
// connection ended before its first request. It has no name there.
const notEstablished = "http2: client conn could not be established"

// explain adds the alert with which the server ended the connection. Under TLS 1.3
// a server refuses a certificate after the client's handshake, so that net/http is
// told while it reads, and that the error does not reach the request.
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
	case <-time.After(alertWait): // it is a later one, which lives
		return err
	case <-r.Context().Done():
		return err
	}
	// crypto/tls gives an alert to every later Read.
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

// handshake makes raw a connection of this pool, whatever comes of it.
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
	// Lists that came since the handshake looked at its own have passed c over.
	if err := p.transport.bundle(p.transport.id.Current()).checkRevoked(chains); err != nil {
		_ = c.Close() // unused
		return nil, err
	}
	return secure, nil
}

// authorizeServer is asked about a server whose chain and name were verified, on full and
// on resumed handshakes.
func (p *pool) authorizeServer(cs tls.ConnectionState) error {
	if err := p.bundle.checkRevoked(cs.VerifiedChains); err != nil {
		return err
	}
	if authorize := p.transport.opts.AuthorizeServer; authorize != nil {
		return authorize(cs)
	}
	return nil
}

// track takes a connection into the pool, unless the pool closed meanwhile.
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

// close says goodbye on idle connections and then cuts the rest. HTTP/2
// connections with a stream that ends right now would survive the first part. It
// returns how many were left when nothing held the pool any more or its time was over.
func (p *pool) close() (cut int) {
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

// conn tells its pool when it is gone.
type conn struct {
	net.Conn
	pool    *pool
	chains  [][]*x509.Certificate // of the peer, once known; guarded by pool.mu
	release func()                // of a connection that is used raw, or nil
	gone    chan struct{}         // closed at the end of the first Close
}

// peerChains returns the chains of the peer, nil before the handshake has ended.
func (c *conn) peerChains() [][]*x509.Certificate {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	return c.chains
}

// NetConn returns what the dialer made, as tls.Conn's method of this name does.
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
