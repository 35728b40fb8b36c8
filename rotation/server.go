package rotation

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ServerOptions configures [Identity.ServerConfig].
type ServerOptions struct {
	// Authorize is required; a nil one is refused, because "whoever has a
	// certificate" should be said by name: [AnyVerifiedPeer].
	Authorize Authorizer
	// ClientCertOptional admits clients without a certificate and does not ask
	// Authorize about them; those with one are verified and authorised as usual.
	// Only for an authority, whose new clients have none yet.
	ClientCertOptional bool
	// SendRoots appends the trust bundle to the chain that is served, so that a
	// new client that knows only a root's fingerprint finds that root in the
	// handshake (RFC 8446 §4.4.2 allows the extra certificates). Only for an authority.
	SendRoots bool
	// NextProtos is the ALPN list, default "h2", "http/1.1".
	NextProtos []string
	// MinVersion is tls.VersionTLS13 by default; tls.VersionTLS12 can be chosen, less is refused.
	MinVersion uint16
	// PolicyVersion names the rules that Authorize applies now, if they can
	// change. When its answer changes, older tickets are ignored and peers fall
	// back to a full handshake; without it a ticket that Authorize refuses is
	// offered again and again by clients that keep it. Called per handshake: it
	// must be fast and safe for concurrent use.
	PolicyVersion func() string
}

// ServerConfig returns a configuration that follows the identity for its whole
// life, also after [Identity.Close], when it stays at the last generation.
// Use it as it is: a clone works as well, changed fields have no effect,
// because each handshake uses the configuration prebuilt for its generation.
// From now on candidates without serverAuth are refused. Each call has ticket
// keys of its own: a ticket of one listener is worth nothing at another.
func (id *Identity) ServerConfig(opts ServerOptions) (*tls.Config, error) {
	if opts.Authorize == nil {
		return nil, errors.New("building server configuration: Authorize is missing")
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
	id.needs(usageServer)
	s := &server{id: id, opts: opts, number: id.servers.Add(1)}
	return &tls.Config{
		MinVersion: minVersion, // parsed: TLS 1.2 at least
		NextProtos: opts.NextProtos,
		ClientAuth: s.clientAuth(), // never used for a handshake; says the truth to whoever looks
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return s.config(time.Now())
		},
	}, nil
}

func parseVersion(v uint16) (uint16, error) {
	switch v {
	case 0, tls.VersionTLS13:
		return tls.VersionTLS13, nil
	case tls.VersionTLS12:
		return v, nil
	}
	return 0, fmt.Errorf("MinVersion %s is not supported, want TLS 1.2 or 1.3", tls.VersionName(v))
}

// server is one listener's view of the identity.
type server struct {
	id     *Identity
	opts   ServerOptions
	number uint64
	built  atomic.Pointer[prebuilt]
	mu     sync.Mutex // one builder at a time
}

// prebuilt is the configuration of one generation, day and policy. All three
// move slowly, so a handshake costs two loads and three comparisons.
type prebuilt struct {
	gen    *Generation
	until  time.Time // end of the day its ticket keys are made for
	from   time.Time
	policy string
	config *tls.Config
}

func (b *prebuilt) fits(g *Generation, policy string, now time.Time) bool {
	return b != nil && b.gen == g && b.policy == policy && now.Before(b.until) && !now.Before(b.from)
}

func (s *server) config(now time.Time) (*tls.Config, error) {
	g, policy := s.id.Current(), s.policy()
	if b := s.built.Load(); b.fits(g, policy, now) {
		return b.config, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// A generation that came up while we waited is fine, an older one is not.
	g = s.id.Current()
	if b := s.built.Load(); b.fits(g, policy, now) {
		return b.config, nil
	}
	b, err := s.build(g, policy, now)
	if err != nil {
		return nil, err
	}
	s.built.Store(b)
	return b.config, nil
}

func (s *server) policy() string {
	if s.opts.PolicyVersion == nil {
		return ""
	}
	return s.opts.PolicyVersion()
}

func (s *server) clientAuth() tls.ClientAuthType {
	if s.opts.ClientCertOptional {
		return tls.VerifyClientCertIfGiven
	}
	return tls.RequireAndVerifyClientCert
}

func (s *server) certificate(g *Generation) tls.Certificate {
	cert := g.cert
	if s.opts.SendRoots {
		cert.Certificate = slices.Clone(cert.Certificate) // the generation's own is shared
		for _, root := range g.roots {
			cert.Certificate = append(cert.Certificate, root.Raw)
		}
	}
	return cert
}

func (s *server) build(g *Generation, policy string, now time.Time) (*prebuilt, error) {
	day := now.UTC().Truncate(ticketDay)
	b := &prebuilt{gen: g, policy: policy, from: day, until: day.Add(ticketDay)}
	keys, err := s.id.tickets.keys(day, s.scope(g, policy))
	if err != nil {
		return nil, err
	}
	b.config = &tls.Config{
		MinVersion:       s.opts.MinVersion,
		Certificates:     []tls.Certificate{s.certificate(g)}, // not GetCertificate: that is skipped for clients that dial an address
		ClientAuth:       s.clientAuth(),
		ClientCAs:        g.pool,
		NextProtos:       s.opts.NextProtos, // those of the outer configuration do not count here
		VerifyConnection: s.authorize,
	}
	b.config.SetSessionTicketKeys(keys)
	return b, nil
}

// authorize runs as VerifyConnection, which also sees resumed connections;
// VerifyPeerCertificate does not.
func (s *server) authorize(cs tls.ConnectionState) error {
	if s.opts.ClientCertOptional && len(cs.PeerCertificates) == 0 {
		return nil
	}
	return s.opts.Authorize(cs)
}

// scope is everything that must be the same for a ticket to be good: who we
// are, whom we trust, what we ask for. The leaf itself is not part of it, so
// that a renewal keeps resumption.
func (s *server) scope(g *Generation, policy string) []string {
	return []string{
		fmt.Sprintf("server %d auth %d min %04x", s.number, s.clientAuth(), s.opts.MinVersion),
		g.names(), g.trust, policy,
	}
}
