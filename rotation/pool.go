package rotation

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// sessionCache is how many servers a generation remembers a ticket of.
const sessionCache = 64

// pool is what one Transport owns of one generation: an http.Transport, its
// session cache and every net.Conn it dialled. A reference count alone is not
// enough: net/http dials in the background, and a dial that ends after the pool
// closed would leave a connection that nobody closes.
type pool struct {
	http     *http.Transport
	requests int // guarded by tenure.mu

	mu     sync.Mutex
	conns  map[*conn]struct{}
	closed bool
}

func newPool(t *Transport, g *Generation) *pool {
	p := &pool{conns: map[*conn]struct{}{}}
	o := t.opts
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(o.HTTP2)
	p.http = &http.Transport{
		Proxy: o.Proxy, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return p.dial(ctx, o, network, addr)
		},
		TLSClientConfig:     clientConfig(g, o.MinVersion),
		TLSHandshakeTimeout: handshakeTimeout,
		MaxConnsPerHost:     o.MaxConnsPerHost, MaxIdleConnsPerHost: o.idlePerHost(),
		IdleConnTimeout:       o.IdleConnTimeout,
		ResponseHeaderTimeout: o.ResponseHeaderTimeout, ExpectContinueTimeout: o.ExpectContinueTimeout,
		Protocols: &protocols,
	}
	return p
}

// clientConfig trusts exactly the generation's bundle; net/http sets the server
// name per connection, so that the standard library checks names and addresses.
func clientConfig(g *Generation, minVersion uint16) *tls.Config {
	return &tls.Config{
		MinVersion: minVersion, // parsed: TLS 1.2 at least
		RootCAs:    g.pool,
		// Not Certificates: crypto/tls would send none to a server whose hints do
		// not name our issuer, and the server's refusal would then blame the wrong thing.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &g.cert, nil },
		// A ticket resumes the identity it was issued to: it must not outlive the generation.
		ClientSessionCache: tls.NewLRUClientSessionCache(sessionCache),
	}
}

func (p *pool) dial(ctx context.Context, o TransportOptions, network, addr string) (net.Conn, error) {
	raw, err := o.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, pool: p}
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
// connections with a stream that ends right now would survive the first part.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.http.CloseIdleConnections()
	p.mu.Lock()
	rest := make([]*conn, 0, len(p.conns))
	for c := range p.conns {
		rest = append(rest, c)
	}
	p.mu.Unlock()
	for _, c := range rest {
		_ = c.Close() // over in any case
	}
}

// conn tells its pool when it is gone.
type conn struct {
	net.Conn
	pool *pool
}

func (c *conn) Close() error {
	c.pool.mu.Lock()
	delete(c.pool.conns, c)
	c.pool.mu.Unlock()
	return c.Conn.Close()
}
