package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/rotation"
)

// Limits of HTTP from programs of this machine.
const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10
	maxStreams        = 100
)

// ClientConfig configures [NewClient]. Identity and To are required.
type ClientConfig struct {
	// Identity is what the server sees. The caller closes it after Serve has returned.
	Identity *rotation.Identity
	// To is the TCP address of the server.
	To Address
	// ServerName is the name that the certificate of the server must have, a DNS name or an
	// address. Default: the host of To.
	ServerName string
	// AllowServer has DNS names or SPIFFE IDs. If it is not empty, the certificate of the
	// server must have one of them as well.
	AllowServer []string
	// Protocol is TCP by default. HTTP and H2C are the same: programs may speak HTTP/1.1 or
	// HTTP/2 without TLS, and the server chooses what it is spoken to.
	Protocol Protocol
	// UIDs are the numbers of the users who may connect to a Unix socket, beside what its
	// mode says. Empty means all whom the mode admits.
	UIDs []int
	// AllowCleartext permits a listener that other machines can reach. Each of them can then
	// act as this service.
	AllowCleartext bool
	Limits         Limits
	Logger         *slog.Logger // nil means slog.Default()
}

// Client accepts cleartext of this machine, and passes it on over mutual TLS.
type Client struct {
	*meter
	cfg       ClientConfig
	transport *rotation.Transport
	conns     *conns
}

// Check returns what is wrong with the configuration, the identity aside. It is for programs
// that read one, and want to say so before they get a certificate.
func (cfg ClientConfig) Check() error {
	if _, err := cfg.Limits.orDefault(); err != nil {
		return err
	}
	if cfg.To.host() == "" {
		return errors.New("the address of the server is missing, or has no host, or is a Unix socket")
	}
	if len(cfg.AllowServer) > 0 {
		_, err := newAllowList(cfg.AllowServer)
		return err
	}
	return nil
}

// NewClient returns a client that follows the identity. It fails if the configuration is not
// valid, or the certificate has no clientAuth. The caller closes it after Serve has returned.
func NewClient(cfg ClientConfig) (*Client, error) {
	err := cfg.Check()
	if err == nil && cfg.Identity == nil {
		err = errors.New("the identity is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("making a proxy: %w", err)
	}
	cfg.Limits, _ = cfg.Limits.orDefault() // checked
	dialer := net.Dialer{Timeout: cfg.Limits.Connect}
	options := rotation.TransportOptions{ServerName: cfg.ServerName, ExpectContinueTimeout: expectContinue, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return belowTLS{c}, nil
	}}
	if len(cfg.AllowServer) > 0 {
		options.AuthorizeServer = rotation.AllowNames(cfg.AllowServer...)
	}
	c := &Client{meter: newMeter(cfg.Logger), cfg: cfg}
	c.conns = newConns(c.meter, false)
	if c.transport, err = cfg.Identity.Transport(options); err != nil {
		return nil, fmt.Errorf("making a proxy: %w", err)
	}
	return c, nil
}

// Close cuts the connections to the server.
func (c *Client) Close() error { return c.transport.Close() }

// Serve passes on what comes on ln until ctx ends, and closes ln. It refuses a listener that
// other machines can reach with [ErrCleartext], unless that was asked for. At the end
// connections and requests under way may finish for Limits.Stop, after which they are cut. It
// returns nil after a clean end. It is called once.
func (c *Client) Serve(ctx context.Context, ln net.Listener) error {
	_, unix := ln.Addr().(*net.UnixAddr)
	switch {
	case !c.cfg.AllowCleartext && !isOfThisMachine(ln.Addr()):
		return errors.Join(fmt.Errorf("listening on %s: %w", ln.Addr(), ErrCleartext), ln.Close())
	case len(c.cfg.UIDs) > 0 && !unix:
		return errors.Join(errors.New("users are told apart on a Unix socket only"), ln.Close())
	}
	most := c.cfg.Limits.MaxConns
	limited := c.conns.limited(listener{ln, c.conns, permitUsers(c.cfg.UIDs)}, most, most)
	if c.cfg.Protocol != TCP {
		return c.serveHTTP(ctx, limited)
	}
	return c.conns.acceptEach(ctx, limited, c.cfg.Limits.Stop, func(in net.Conn) { c.handleTCP(context.WithoutCancel(ctx), in) })
}

// Ready returns nil if the certificate is valid. That the server is away is no reason for a
// program here to be taken out of service.
func (c *Client) Ready(context.Context) error { return c.cfg.Identity.Check() }

// handleTCP connects a program to the server. If that fails, its connection is reset.
func (c *Client) handleTCP(ctx context.Context, in net.Conn) {
	front := newSide(in)
	out, err := c.transport.DialTLSContext(ctx, "tcp", c.cfg.To.text)
	if err != nil {
		c.fail(unreachable, in.RemoteAddr().String(), err)
		front.abort()
		return
	}
	if kind, err := newStream(front, newSide(out), c.cfg.Limits.Idle).run(); err != nil {
		c.fail(kind, in.RemoteAddr().String(), err)
	}
}

// serveHTTP is Serve for HTTP. Shutdown does not wait for WebSockets.
func (c *Client) serveHTTP(ctx context.Context, ln net.Listener) error {
	handler := &httpHandler{meter: c.meter, next: c.reverse(), idle: c.cfg.Limits.Idle}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Handler: c.ownMachineOnly(handler), Protocols: &protocols,
		ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog: slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ln) }()
	select {
	case err := <-ended: // it failed: ctx has not ended
		c.conns.cutAll()
		handler.open.Wait()
		return fmt.Errorf("serving HTTP: %w", err)
	case <-ctx.Done():
	}
	var all sync.WaitGroup
	all.Go(func() { _ = srv.Shutdown(context.WithoutCancel(ctx)) }) // has no error without a deadline but those of closing
	all.Go(handler.open.Wait)
	err := c.conns.drain(&all, c.cfg.Limits.Stop)
	<-ended //nolint:errcheck // says that Shutdown was called
	return err
}

// reverse returns the handler that sends requests to the server.
func (c *Client) reverse() http.Handler {
	return newReverse(c.meter, c.transport, func(out, in *http.Request) {
		out.URL.Scheme, out.URL.Host, out.Host = "https", c.cfg.To.text, c.cfg.To.text
		for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
			if v, ok := in.Header[name]; ok { // the library removes them: a program here speaks for itself
				out.Header[name] = v
			}
		}
	})
}

// ownMachineOnly refuses what a browser sends for a page of another site. Such a page could
// use the identity: by a request to loopback, by a WebSocket, or by a name that it lets resolve
// to loopback (DNS rebinding). Programs send neither Sec-Fetch-Site nor Origin, and name an
// address of loopback. No page reaches a Unix socket.
func (c *Client) ownMachineOnly(next *httpHandler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		if _, unix := at.(*net.UnixAddr); unix {
			next.ServeHTTP(w, r)
			return
		}
		if why := c.refuseBrowser(r); why != "" {
			c.fail(ofRequest, r.RemoteAddr, errors.New(why))
			http.Error(w, why, http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// refuseBrowser returns why a request over TCP is refused, or "".
func (c *Client) refuseBrowser(r *http.Request) string {
	const foreign = "this proxy does not serve pages of other sites"
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "none" && site != "same-origin" {
		return foreign
	}
	if origin := r.Header.Get("Origin"); origin != "" { // browsers send it with each WebSocket
		u, err := url.Parse(origin)
		if err != nil || !isHostOfThisMachine(u.Host) {
			return foreign
		}
	}
	if c.cfg.AllowCleartext || r.Host == c.cfg.To.text || isHostOfThisMachine(r.Host) {
		return ""
	}
	return "the host of the request is none of this machine"
}

// isHostOfThisMachine reports whether a host, with or without a port, is localhost or an address
// of loopback.
func isHostOfThisMachine(host string) bool {
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(trimBrackets(host), "80")
	}
	a, err := ParseAddress(host)
	return err == nil && a.Path() == "" && a.OnThisMachine()
}

// trimBrackets returns an IPv6 address without its brackets.
func trimBrackets(host string) string {
	if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
		return host[1 : len(host)-1]
	}
	return host
}
