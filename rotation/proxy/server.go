package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/internal/connlimit"
	"github.com/artstore/artstore-pki/rotation"
)

// ServerConfig configures [NewServer]. Identity, Allow and To are required.
type ServerConfig struct {
	// Identity is what peers see. The caller closes it after Serve has returned.
	Identity *rotation.Identity
	// Allow has the names of peers that are admitted: DNS names or SPIFFE IDs, compared
	// exactly. An empty list is an error.
	Allow []string
	// To is where the service listens in cleartext: a Unix socket or an address of loopback.
	To Address
	// AllowCleartext permits a service on another machine. Everybody on the way can read and
	// change what goes there, the identity of the peer included.
	AllowCleartext bool
	// Protocol is TCP by default.
	Protocol Protocol
	// ProxyHeader puts a header of the PROXY protocol, version 2, in front of each connection
	// of TCP to the service. It is an error with HTTP, which has headers of its own.
	ProxyHeader bool
	// IdentityHeader is the header of HTTP with the name by which the peer was admitted.
	// Default [DefaultIdentityHeader].
	IdentityHeader string
	// DrainTimeout is how long a connection may go on after the certificate of its peer has
	// expired or lost its root. Default that of the identity.
	DrainTimeout time.Duration
	Limits       Limits
	Logger       *slog.Logger // nil means slog.Default()
}

// Server accepts mutual TLS, and passes what comes on to a service that knows nothing of it.
type Server struct {
	*meter
	cfg     ServerConfig
	allow   allowList
	backend *backend
	tls     *rotation.Server
	conns   *conns
}

// Check returns what is wrong with the configuration, the identity aside. It is for programs
// that read one, and want to say so before they get a certificate.
func (cfg ServerConfig) Check() error {
	_, err := cfg.parse()
	return err
}

// parse returns a server that has no identity yet.
func (cfg ServerConfig) parse() (s *Server, err error) {
	if cfg.Limits, err = cfg.Limits.orDefault(); err != nil {
		return nil, err
	}
	cfg.IdentityHeader = cmp.Or(cfg.IdentityHeader, DefaultIdentityHeader)
	if err := checkHeaderName(cfg.IdentityHeader); err != nil {
		return nil, err
	}
	if cfg.ProxyHeader && cfg.Protocol != TCP {
		return nil, errors.New("the PROXY protocol goes with TCP: HTTP has headers")
	}
	s = &Server{meter: newMeter(cfg.Logger), cfg: cfg}
	s.conns = newConns(s.meter, true)
	if s.allow, err = newAllowList(cfg.Allow); err != nil {
		return nil, err
	}
	s.backend, err = newBackend(cfg.To, cfg.Limits.Connect, cfg.AllowCleartext)
	return s, err
}

// NewServer returns a server that follows the identity. It fails if the configuration is not
// valid, or the certificate has no serverAuth.
func NewServer(cfg ServerConfig) (*Server, error) {
	s, err := cfg.parse()
	if err == nil && cfg.Identity == nil {
		err = errors.New("the identity is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("making a proxy: %w", err)
	}
	options := rotation.ServerOptions{
		Authorize: rotation.AllowNames(cfg.Allow...), DrainTimeout: cfg.DrainTimeout,
		MaxConns: s.cfg.Limits.MaxConns, MaxConnsPerAddress: s.cfg.Limits.MaxConnsPerAddress,
	}
	if cfg.Protocol == TCP {
		options.NextProtos = []string{} // the proxy does not know what the service speaks
	}
	if s.tls, err = cfg.Identity.Server(options); err != nil {
		return nil, fmt.Errorf("making a proxy: %w", err)
	}
	return s, nil
}

// Serve passes on what comes on ln until ctx ends, and closes ln. Then connections and
// requests under way may finish for Limits.Stop, after which they are cut. It returns nil
// after a clean end. It is called once.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ln = listener{Listener: ln, conns: s.conns}
	if s.cfg.Protocol != TCP {
		return s.serveHTTP(ctx, ln)
	}
	limits := s.cfg.Limits
	ln = s.tls.Listener(s.conns.limited(ln, limits.MaxConns, limits.MaxConnsPerAddress))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return s.conns.acceptEach(ctx, ln, limits.Stop, func(c net.Conn) { s.handleTCP(context.WithoutCancel(ctx), c.(*tls.Conn)) }) //nolint:forcetypeassert // of the listener of rotation
}

// Ready returns nil if a request could be served now: the certificate is valid, and the
// service accepts connections. It is for readiness probes.
func (s *Server) Ready(ctx context.Context) error {
	if err := s.cfg.Identity.Check(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Limits.Connect)
	defer cancel()
	c, err := s.backend.dial(ctx)
	if err != nil {
		return fmt.Errorf("connecting to the service: %w", err)
	}
	if s.cfg.ProxyHeader {
		var header []byte
		if header, err = localHeader(); err == nil {
			_ = c.SetWriteDeadline(time.Now().Add(s.cfg.Limits.Connect)) // fails for a closed connection only
			_, err = c.Write(header)
		}
	}
	return errors.Join(err, c.Close())
}

// handleTCP connects a peer to the service. If that fails, the connection is closed without
// the close_notify of TLS, so that the peer sees a failure and no empty answer.
func (s *Server) handleTCP(ctx context.Context, c *tls.Conn) {
	front := newSide(c)
	back, err := s.connect(ctx, c)
	if err != nil {
		s.fail(unreachable, c.RemoteAddr().String(), err)
		front.abort()
		return
	}
	if kind, err := newStream(front, newSide(back), s.cfg.Limits.Idle).run(); err != nil {
		s.fail(kind, c.RemoteAddr().String(), err)
	}
}

// connect returns a connection to the service on which the PROXY header was sent.
func (s *Server) connect(ctx context.Context, c *tls.Conn) (net.Conn, error) {
	back, err := s.backend.dial(ctx)
	if err != nil || !s.cfg.ProxyHeader {
		return back, err
	}
	cs := c.ConnectionState()
	header, err := proxyHeader(c.RemoteAddr(), c.LocalAddr(), cs, s.allow.match(cs.PeerCertificates[0]))
	if err == nil {
		err = back.SetWriteDeadline(time.Now().Add(s.cfg.Limits.Connect))
	}
	if err == nil {
		_, err = back.Write(header)
	}
	if err == nil {
		err = back.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		_ = back.Close() // unused
		return nil, err
	}
	return back, nil
}

// serveHTTP is Serve for HTTP. The server of rotation ends with its last request, but does
// not wait for WebSockets, and may wait for requests longer than Limits.Stop.
func (s *Server) serveHTTP(ctx context.Context, ln net.Listener) error {
	caps := connlimit.Caps{Total: s.cfg.Limits.MaxConns, PerAddress: s.cfg.Limits.MaxConnsPerAddress}.OrDefault()
	handler := &httpHandler{meter: s.meter, next: s.reverse(), idle: s.cfg.Limits.Idle, most: caps.PerAddress, by: map[netip.Prefix]int{}}
	ended := make(chan error, 1)
	go func() { ended <- s.tls.Serve(ctx, ln, handler) }()
	select {
	case err := <-ended: // it failed: ctx has not ended
		s.conns.cutAll()
		handler.open.Wait()
		return err
	case <-ctx.Done():
	}
	var all sync.WaitGroup
	var err error
	all.Go(func() { err = <-ended })
	all.Go(handler.open.Wait)
	return errors.Join(s.conns.drain(&all, s.cfg.Limits.Stop), err)
}

// reverse returns the handler that sends requests to the service.
func (s *Server) reverse() http.Handler {
	scrubber := scrubber{plainName(s.cfg.IdentityHeader)}
	return newReverse(s.meter, newBackendTransport(s.backend, s.cfg), func(out *http.Request, in *http.Request) {
		out.URL.Scheme, out.URL.Host = "http", localhost // the transport knows where to
		if out.Host == "" {
			out.Host = localhost
		}
		scrubber.scrub(out.Header)
		leaf := in.TLS.PeerCertificates[0]
		out.Header.Set(s.cfg.IdentityHeader, s.allow.match(leaf))
		out.Header.Set(clientCert, byteSequence(leaf.Raw))
		setForwarded(out, in)
	})
}
