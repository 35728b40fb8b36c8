package rotation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultIdleConns   = 16               // per host; net/http's 2 makes a busy client dial all day
	defaultIdleTimeout = 90 * time.Second // as net/http.DefaultTransport
	dialTimeout        = 10 * time.Second
	handshakeTimeout   = 10 * time.Second
)

// TransportOptions configures [Identity.Transport]. The zero value speaks
// HTTP/2 and HTTP/1.1 over TLS 1.3, without a proxy.
type TransportOptions struct {
	HTTP1Only             bool          // do not offer HTTP/2; default: both, HTTP/2 preferred, and HTTP/1.1 for requests with Upgrade
	MaxConnsPerHost       int           // per generation; 0 is no limit
	ResponseHeaderTimeout time.Duration // from the end of the request; 0 is no limit
	ExpectContinueTimeout time.Duration // wait for 100 Continue; 0 sends the body at once
	IdleConnTimeout       time.Duration // default 90 s
	MinVersion            uint16        // default tls.VersionTLS13; tls.VersionTLS12 can be chosen, less is refused
	CipherSuites          []uint16      // of TLS 1.2, where MinVersion permits it; default crypto/tls's choice

	// ServerName is the name that the certificate of every server must have, a DNS name
	// or an address, in place of the host that is dialled. It is also sent to the
	// server. Default: the host. [Transport.Handshake] uses it in place of its argument.
	ServerName string
	// AuthorizeServer is called for every server, in full and in resumed handshakes,
	// after its chain and its name were verified: for instance AllowNames with a SPIFFE
	// ID. Its error ends the handshake. Default: none.
	AuthorizeServer Authorizer
	// Trust has the roots and revocation lists by which servers are verified, in place of
	// those of the identity. When it changes, older connections are drained
	// as after a rotation, and those to revoked servers are cut. It
	// must stay open as long as the transport is used.
	Trust *Trust

	// Proxy is asked for a tunnel to each server by CONNECT (RFC 9110 §9.3.6),
	// within 10 s: http://host:port, or https, with user and password before the
	// host if the proxy wants them. TLS is with the server, through the tunnel.
	// Default: none; the environment is not read.
	Proxy *url.URL
	// ProxyTrust verifies a proxy of the scheme https; default: the bundle of the
	// identity. The proxy is shown no certificate.
	ProxyTrust *Trust
	// DialContext makes TCP connections, to the servers or to the proxy; default net.Dialer, 10 s.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
}

// check returns what is wrong with the options.
func (o TransportOptions) check() error {
	if name := o.ServerName; name != "" && net.ParseIP(name) == nil && strings.ContainsAny(name, ":*/[] \t\r\n\x00") {
		return fmt.Errorf("ServerName %q is neither a DNS name nor an address", name)
	}
	return checkProxy(o.Proxy)
}

func (o TransportOptions) idlePerHost() int {
	if o.MaxConnsPerHost > 0 {
		return o.MaxConnsPerHost
	}
	return defaultIdleConns
}

// Transport is an [http.RoundTripper] for https only. Each request uses the generation
// that is current when it starts. It is safe for concurrent use.
//
// A response body keeps its generation open until EOF or Close. A body that is neither
// read nor closed keeps old connections open until Config.DrainTimeout has passed.
type Transport struct {
	id     *Identity
	opts   TransportOptions
	closed atomic.Bool
}

// Transport returns a client transport with its own connections. From now on candidates
// without clientAuth are refused. It fails if the certificate in effect has no
// clientAuth, or if opts are not valid.
func (id *Identity) Transport(opts TransportOptions) (*Transport, error) {
	minVersion, err := parseVersion(opts.MinVersion)
	if err == nil {
		err = opts.check()
	}
	if err == nil && usages(id.Current().Leaf())&usageClient == 0 {
		err = errors.New("the leaf lacks clientAuth")
	}
	if err != nil {
		return nil, fmt.Errorf("making a transport: %w", err)
	}
	t := &Transport{id: id, opts: opts}
	t.opts.MinVersion = minVersion
	if t.opts.IdleConnTimeout == 0 {
		t.opts.IdleConnTimeout = defaultIdleTimeout
	}
	if t.opts.DialContext == nil {
		t.opts.DialContext = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	id.requireUsage(usageClient)
	if opts.Trust != nil {
		opts.Trust.addUser(t)
	}
	return t, nil
}

// bundle returns what servers are verified against now, by connections of generation g.
func (t *Transport) bundle(g *Generation) *bundle {
	if t.opts.Trust != nil {
		return t.opts.Trust.current.Load()
	}
	return &g.bundle
}

// applyTrust is called after a change of Trust. It drains the connections that were made
// under an older bundle, and cuts those to servers that the new bundle revokes.
func (t *Transport) applyTrust() {
	b := t.opts.Trust.current.Load()
	for _, n := range t.id.liveGenerations() {
		for _, p := range n.outdatePools(t) {
			t.id.drains(n, p)
		}
	}
	for _, n := range t.id.liveGenerations() {
		for _, c := range n.connections() {
			if c.pool.transport == t {
				t.id.cutIfRevoked(c, b)
			}
		}
	}
}

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	n, p, err := t.acquireCurrent()
	if err != nil {
		return nil, closeBodyAndFail(r, err)
	}
	return t.send(n, p, r)
}

// acquireCurrent is acquire of the generation in effect.
func (t *Transport) acquireCurrent() (*liveGeneration, *pool, error) {
	for {
		n := t.id.current.Load()
		p, err := n.acquire(t, false)
		if p != nil || err != nil {
			return n, p, err
		}
		// n was superseded after the load. Its successor is there already, unless the
		// Identity was closed.
		if t.id.current.Load() == n {
			return nil, nil, ErrClosed
		}
	}
}

// send sends r over p and holds p until the answer has ended.
func (t *Transport) send(n *liveGeneration, p *pool, r *http.Request) (*http.Response, error) {
	release := sync.OnceFunc(func() { n.release(p) })
	if err := t.acceptable(r); err != nil {
		release()
		return nil, closeBodyAndFail(r, err)
	}
	resp, err := p.roundTrip(r)
	if err != nil {
		release()
		return nil, err
	}
	switch body := resp.Body.(type) {
	case io.ReadWriteCloser: // 101 Switching Protocols: the caller now owns the connection
		resp.Body = &upgraded{ReadWriteCloser: body, release: release}
	default:
		if body == http.NoBody {
			release()
			return resp, nil
		}
		resp.Body = &heldBody{ReadCloser: body, release: release}
	}
	return resp, nil
}

func (t *Transport) acceptable(r *http.Request) error {
	if r.URL == nil || r.URL.Scheme != "https" {
		return errors.New("rotation: only https is spoken")
	}
	return nil
}

// closeBodyAndFail closes the body of a request that was not sent, as [http.RoundTripper]
// demands, and adds the host to err.
func closeBodyAndFail(r *http.Request, err error) error {
	if r.Body != nil {
		_ = r.Body.Close() // the request failed already
	}
	if r.URL == nil {
		return err
	}
	return fmt.Errorf("connecting to %s: %w", r.URL.Host, err)
}

// CloseIdleConnections closes the connections of the current generation that no request
// uses; http.Client calls it. Older generations have no idle connections.
func (t *Transport) CloseIdleConnections() { t.id.current.Load().closeIdle(t) }

// Close cuts all connections of all generations, requests in flight included,
// and refuses further requests with [ErrClosed]. It is idempotent.
func (t *Transport) Close() error {
	t.closed.Store(true)
	if t.opts.Trust != nil {
		t.opts.Trust.removeUser(t)
	}
	for _, n := range t.id.liveGenerations() {
		n.dropTransport(t)
	}
	return nil
}

// heldBody releases its pool at EOF, at an error or at Close, whichever comes first.
type heldBody struct {
	io.ReadCloser
	release func()
}

func (b *heldBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.release()
	}
	return n, err
}

func (b *heldBody) Close() error {
	defer b.release()
	return b.ReadCloser.Close()
}

// upgraded is the body of an answer with status 101. It stays writable after EOF, so only
// Close releases its pool.
type upgraded struct {
	io.ReadWriteCloser
	release func()
}

func (u *upgraded) Close() error {
	defer u.release()
	return u.ReadWriteCloser.Close()
}

// Lease pins one generation with its connections, so that a caller can do several things
// with one certificate: fetch a token that is bound to it, then use the token. A leased
// generation that was superseded stays usable until the lease is released, but not
// longer than Config.DrainTimeout, or than its leaf is valid.
type Lease struct {
	live    *liveGeneration
	release func()
}

// Lease pins the current generation. After [Identity.Close] the lease still
// names the last generation, and its requests fail.
func (id *Identity) Lease() *Lease {
	for {
		n := id.current.Load()
		if n.lease() {
			return &Lease{live: n, release: sync.OnceFunc(n.unlease)}
		}
		if id.current.Load() == n { // closed: there will be no successor
			return &Lease{live: n, release: func() {}}
		}
	}
}

// Generation returns the pinned generation.
func (l *Lease) Generation() *Generation { return l.live.gen }

// Thumbprint returns [Generation.Thumbprint] of the pinned generation.
func (l *Lease) Thumbprint() string { return l.live.gen.thumb }

// RoundTripper returns a RoundTripper that sends requests over the pinned generation, with
// the options of t, which must be of the same Identity. Requests fail with [ErrRetired]
// once the generation is over.
func (l *Lease) RoundTripper(t *Transport) http.RoundTripper { return leased{l.live, t} }

// Release ends the lease; it may be called again. Requests under way keep the generation
// open.
func (l *Lease) Release() { l.release() }

type leased struct {
	live *liveGeneration
	t    *Transport
}

func (s leased) RoundTrip(r *http.Request) (*http.Response, error) {
	p, err := s.live.acquire(s.t, true)
	if err != nil {
		return nil, closeBodyAndFail(r, err)
	}
	return s.t.send(s.live, p, r)
}
