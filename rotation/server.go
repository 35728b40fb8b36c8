package rotation

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/internal/panics"
)

// ServerOptions configures [Identity.Server] and [Identity.ServerTLSConfig].
type ServerOptions struct {
	// Authorize is required: to admit every verified peer is said by its name,
	// [AnyVerifiedPeer]. It is called concurrently, in each handshake, for each request
	// that [Server.Handler] sees, and once a second about each open connection: so it
	// should use memory only. Its rules may change at any time; [Server.Reauthorize]
	// applies them at once. A panic counts as a refusal.
	Authorize Authorizer
	// ClientCertOptional admits clients without a certificate, and does not ask
	// Authorize about them. Clients with a certificate are verified and authorized as
	// usual. It is for an authority only, whose new clients have no certificate yet.
	ClientCertOptional bool
	// SendRoots appends the trust bundle to the chain that is served, so that a
	// new client that knows only a root's fingerprint finds that root in the
	// handshake (RFC 8446 §4.4.2 allows the extra certificates). Only for an authority.
	SendRoots bool
	// NextProtos is the ALPN list, default "h2", "http/1.1".
	NextProtos []string
	// MinVersion is tls.VersionTLS13 by default; tls.VersionTLS12 can be chosen, less is refused.
	MinVersion uint16
	// PolicyVersion returns a name of the rules that Authorize applies now, if they can
	// change. It is for session tickets only: when the name changes, older tickets are
	// ignored, and peers make a full handshake. Without it, some clients offer a ticket that
	// Authorize refuses again and again. It is called concurrently, in each handshake,
	// so it must be fast. A panic refuses the handshake.
	PolicyVersion func() string
	// MaxAge is how long a connection may live before it is drained; 0 is no limit.
	MaxAge time.Duration
	// DrainTimeout is how long a connection may go on after the certificate of its peer
	// has expired or lost its root, or after MaxAge. Default Config.DrainTimeout.
	DrainTimeout time.Duration
	// MaxConns is how many connections [Server.Serve] has open at a time, handshakes
	// included; a further one waits in the kernel's queue. 0 means 1024.
	MaxConns int
	// MaxConnsPerAddress is how many of them one IPv4 address or IPv6 /64 may have; a
	// further one is closed at once, and the log says so once a minute. 0 means a
	// quarter of MaxConns. Behind a balancer that terminates TCP all clients have its
	// address: there it must be MaxConns.
	MaxConnsPerAddress int
}

// wholeRecords turns off the short first records of crypto/tls. They let a browser on a
// slow link begin earlier to show a page. A program waits for the whole message, and each
// short record costs it a system call.
const wholeRecords = true

// Server is one service of the identity: its configuration, and the connections that its
// Listener or Handshake accepted.
//
// TLS 1.3 asks for a certificate once, at the start of a connection. So each open
// connection is judged again: when trust or revocation lists change, when the certificate
// of its peer expires, and once a second by Authorize. Revoked peers are cut at once.
// Peers that Authorize refuses are cut within about a second, or at once by
// [Server.Reauthorize]; [Server.Handler] refuses their requests before that. A
// connection is drained if the certificate of its peer has expired or has no trusted root
// any more, or after MaxAge: the client is told with its next answer, and the connection
// is cut after DrainTimeout. If the server itself has a certificate of another issuer since,
// the client is told as well, and nothing is cut: a client that comes again before the old
// issuer is revoked loses no request then.
type Server struct {
	id     *Identity
	opts   ServerOptions
	number uint64
	built  atomic.Pointer[prebuilt]
	mu     sync.Mutex // one builder at a time

	conns connTracker
}

// Server returns a service that follows the identity. After [Identity.Close] it stays at
// the last generation, and judges open connections no more. From now on candidates
// without serverAuth are refused. Each Server has its own ticket keys: a ticket of one
// cannot be used at another.
func (id *Identity) Server(opts ServerOptions) (*Server, error) {
	if opts.Authorize == nil {
		return nil, errors.New("building server configuration: Authorize is missing")
	}
	if opts.MaxAge < 0 || opts.DrainTimeout < 0 || opts.MaxConns < 0 || opts.MaxConnsPerAddress < 0 {
		return nil, errors.New("building server configuration: MaxAge, DrainTimeout, MaxConns or MaxConnsPerAddress is negative")
	}
	minVersion, err := parseVersion(opts.MinVersion)
	if err != nil {
		return nil, fmt.Errorf("building server configuration: %w", err)
	}
	if usages(id.Current().Leaf())&usageServer == 0 {
		return nil, errors.New("building server configuration: the leaf lacks serverAuth")
	}
	opts.MinVersion, opts.NextProtos = minVersion, slices.Clone(opts.NextProtos)
	if opts.NextProtos == nil {
		opts.NextProtos = []string{"h2", "http/1.1"}
	}
	if opts.DrainTimeout == 0 {
		opts.DrainTimeout = id.drain
	}
	id.requireUsage(usageServer)
	s := &Server{id: id, opts: opts, number: id.servers.Add(1)}
	s.conns.conns, s.conns.changed = map[*serverConn]struct{}{}, make(chan struct{}, 1)
	return s, nil
}

// ServerTLSConfig returns the configuration of a new [Server], for libraries that accept
// connections themselves. Such connections are not judged again once they are open.
func (id *Identity) ServerTLSConfig(opts ServerOptions) (*tls.Config, error) {
	s, err := id.Server(opts)
	if err != nil {
		return nil, err
	}
	return s.TLSConfig(), nil
}

// TLSConfig returns the configuration. A clone works as well, but changed fields have no
// effect: each handshake uses the configuration that was built for its generation.
func (s *Server) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion: s.opts.MinVersion, // parsed: TLS 1.2 at least
		NextProtos: s.opts.NextProtos,
		ClientAuth: s.clientAuth(), // not used for handshakes; for code that inspects the configuration
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			conf, err := s.config(time.Now())
			if err != nil {
				return nil, faultError{err}
			}
			return conf, nil
		},
	}
}

// InvalidateSessions makes all session tickets of all servers of the identity invalid:
// the next handshake of each peer is a full one. A change of trust, names, revocation
// lists or PolicyVersion does this by itself.
func (id *Identity) InvalidateSessions() { id.epoch.Add(1) }

func parseVersion(v uint16) (uint16, error) {
	switch v {
	case 0, tls.VersionTLS13:
		return tls.VersionTLS13, nil
	case tls.VersionTLS12:
		return v, nil
	}
	return 0, fmt.Errorf("MinVersion %s is not supported, want TLS 1.2 or 1.3", tls.VersionName(v))
}

// prebuilt is the configuration for one generation, day, policy and epoch. These change
// rarely, so most handshakes find the configuration that they need.
type prebuilt struct {
	gen    *Generation
	epoch  uint64
	until  time.Time // end of the day of its ticket keys, or when the set of valid certificates changes, if that is earlier
	from   time.Time
	policy string
	config *tls.Config
}

func (b *prebuilt) fits(g *Generation, epoch uint64, policy string, now time.Time) bool {
	return b != nil && b.gen == g && b.epoch == epoch && b.policy == policy && now.Before(b.until) && !now.Before(b.from)
}

// config returns the configuration for a handshake at now, and builds it if the last one
// does not fit.
func (s *Server) config(now time.Time) (*tls.Config, error) {
	policy, err := s.policy()
	if err != nil {
		return nil, err
	}
	g, epoch := s.id.Current(), s.id.epoch.Load()
	if b := s.built.Load(); b.fits(g, epoch, policy, now) {
		return b.config, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g = s.id.Current() // a newer one may have been published during the wait for mu
	if b := s.built.Load(); b.fits(g, epoch, policy, now) {
		return b.config, nil
	}
	b, err := s.build(g, epoch, policy, now)
	if err != nil {
		return nil, err
	}
	s.built.Store(b)
	return b.config, nil
}

func (s *Server) policy() (version string, err error) {
	if s.opts.PolicyVersion == nil {
		return "", nil
	}
	// The handshake has a goroutine of its own: a panic would end the process.
	defer panics.Catch(func(p *panics.Error) { err = fmt.Errorf("PolicyVersion panicked: %v", p.Value) })
	return s.opts.PolicyVersion(), nil
}

func (s *Server) clientAuth() tls.ClientAuthType {
	if s.opts.ClientCertOptional {
		return tls.VerifyClientCertIfGiven
	}
	return tls.RequireAndVerifyClientCert
}

func (s *Server) certificates(pairs []certPair, g *Generation) []tls.Certificate {
	var certs []tls.Certificate
	for _, p := range pairs {
		c := p.certificate()
		if s.opts.SendRoots {
			for _, root := range g.roots {
				c.Certificate = append(c.Certificate, root.Raw)
			}
		}
		certs = append(certs, c)
	}
	return certs
}

func (s *Server) build(g *Generation, epoch uint64, policy string, now time.Time) (*prebuilt, error) {
	day := now.UTC().Truncate(ticketDay)
	b := &prebuilt{gen: g, epoch: epoch, policy: policy, from: day, until: day.Add(ticketDay)}
	pairs, next := g.serving(now)
	if !next.IsZero() {
		b.until = earlier(b.until, next)
	}
	keys, err := s.id.tickets.keys(day, s.scope(pairs, g, epoch, policy))
	if err != nil {
		return nil, err
	}
	b.config = &tls.Config{
		MinVersion: s.opts.MinVersion,
		// Not GetCertificate: crypto/tls does not call it for a client that sends no name.
		// Of several certificates it takes the first that the client can use.
		Certificates:                s.certificates(pairs, g),
		ClientAuth:                  s.clientAuth(),
		ClientCAs:                   g.pool,
		NextProtos:                  s.opts.NextProtos,
		DynamicRecordSizingDisabled: wholeRecords,
		// Called for resumed connections too, unlike VerifyPeerCertificate.
		VerifyConnection: func(cs tls.ConnectionState) error { return s.authorizeConn(g, cs) },
	}
	b.config.SetSessionTicketKeys(keys)
	return b, nil
}

// authorizeConn judges the client in each handshake, after crypto/tls has verified its
// chain.
func (s *Server) authorizeConn(g *Generation, cs tls.ConnectionState) error {
	if s.opts.ClientCertOptional && len(cs.PeerCertificates) == 0 {
		return nil
	}
	if err := g.checkRevoked(cs.VerifiedChains); err != nil {
		return err
	}
	return s.authorize(cs)
}

// scope returns everything that must be the same for a ticket to be accepted: the server,
// its names, its issuers, its trust, the revocations and the policy. The leaf itself is not
// part of it, so that a renewal keeps resumption.
func (s *Server) scope(pairs []certPair, g *Generation, epoch uint64, policy string) []string {
	return []string{
		fmt.Sprintf("server %d auth %d min %04x epoch %d", s.number, s.clientAuth(), s.opts.MinVersion, epoch),
		ticketNames(pairs), ticketIssuers(pairs), g.trust, g.revoked.digest, policy,
	}
}
