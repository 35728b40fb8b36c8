// Package enroll obtains certificates from the authority and renews them. Its
// [Source] is a rotation.Source, so that this is a whole program:
//
//	src, err := enroll.New(enroll.Config{
//		URL:             "https://ca.example:8443",
//		RootFingerprint: "9f86d081884c7d65…",
//		Token:           enroll.TokenFile("/run/secrets/enrolment-token"),
//		Dir:             "/var/lib/ingester/identity",
//	})
//	identity, err := rotation.Open(ctx, rotation.Config{Source: src})
//
// The private key is made here and never travels: the authority gets a CSR
// (PKCS #10) with a one-time token, later a CSR over mutual TLS with the
// certificate that is to be replaced. Every renewal makes a new key.
//
// # Promises
//
//   - Trust is never assumed. The first contact is anchored at roots or at a
//     fingerprint that the operator or the token brings ([Bootstrap]); there is
//     no unverified request, and the system's roots are never used.
//   - A stored certificate that is still valid is used at a restart: neither a
//     token nor the authority is needed to come back, and a fleet that
//     restarts does not storm the authority.
//   - What is published is on disk before (unless [Config.InMemory]), as one
//     generation behind one rename; a crash leaves the old one or the new one.
//   - The key of a running enrolment is on disk before the token is sent. If
//     the answer is lost, the same token with the same key asks again and the
//     authority gives the same certificate; a token is not lost with a cable.
//   - Renewal starts at a random point between 0.60 and 0.70 of the life, backs
//     off with full jitter, honours Retry-After and never gives up. After an
//     outage a fleet comes back spread over what is left of its certificates. Time
//     is compared on the wall clock, so that a suspended machine renews within one
//     tick of waking, and on the authority's, as its answers date themselves.
//   - An expired certificate is renewed without a token for as long as the
//     authority takes it: its key signs a proof in place of the handshake.
//   - The trust bundle and the lists of revoked certificates are refreshed on
//     their own clocks. No failure of one holds up another. A list is used only
//     if it verifies by its issuer and that one by the roots, and is replaced by
//     a newer one only. What a list once named stays refused until that
//     certificate has ended, whatever later lists say, also over a restart.
//   - Tokens and requests go to the authority and to no other server under the same
//     roots: its certificate says what it is, and is on no list that is held here
//     ([ErrNotAuthority]).
//
// # Rules for callers
//
// One [Source] owns one directory, as long as it is watched; another one, [Issue] or
// [Renew] then fails with [ErrBusy], in this process or another. Logs carry serials, fingerprints and names, never
// keys, tokens or bodies.
package enroll

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/secret"
)

// TokenFile reads the token from path at each use, for [Config.Token]: an
// operator can put a new one there while the service runs. What is read, and
// what is refused, says [secret.ReadFile].
func TokenFile(path string) func(context.Context) (secret.String, error) {
	return func(context.Context) (secret.String, error) {
		t, err := secret.ReadFile(path)
		if err != nil {
			return t, fmt.Errorf("reading the enrolment token: %w", err)
		}
		return t, nil
	}
}

// Config says where certificates come from and where they are kept.
type Config struct {
	// URL of the authority, https://host[:port]. Required.
	URL string
	// Roots anchor the first contact. Empty: RootFingerprint does.
	Roots []*x509.Certificate
	// RootFingerprint is the SHA-256 of a root in hex, colons allowed; used when
	// Roots is empty. Empty as well: the fingerprint that the token brings.
	RootFingerprint string
	// AuthorityName is for a stock step-ca, whose certificate does not say that it is
	// an authority: a server without the mark (extended key usage id-kp-cmcRA) is
	// accepted if its certificate has this DNS name or IP address. Every service that
	// can obtain that name under the same root can then pass for the authority.
	// Empty accepts nobody without the mark.
	AuthorityName string
	// Token gives a one-time enrolment token, a JWT made by "artstore-pki token";
	// the zero value means that there is none at the moment. It is asked for each enrolment: at first, and when the authority no
	// longer accepts the certificate, expired or not. nil: only a stored certificate is renewed.
	Token func(context.Context) (secret.String, error)
	// Dir keeps the identity: tls.crt, tls.key (0600), ca.crt, crl.pem if the
	// authority has revoked lists, and crl.kept (0600) if earlier lists named what
	// these do not; and log.head, the newest head of the authority's log that follows
	// from the one before; and authority.json, which [ReadConfig] reads. It is made
	// (0700) if absent. A renewal keeps owner, group and mode that the files and their
	// directories were given; a mode above 0640 of a secret one is a mistake and reset. One process
	// at a time may write here ([ErrBusy]). Required unless InMemory.
	Dir string
	// InMemory keeps nothing on disk. A restart then needs a new token.
	InMemory bool
	// KeyType of new keys. Empty means that of the key which is replaced, and
	// EC-P256 for the first one.
	KeyType KeyType
	// TrustRefresh is the time between two looks at the trust bundle, and at the
	// revoked lists. 0 means a sixth of the certificate's life, at most 1 h.
	TrustRefresh time.Duration
	// Timeout bounds one request to the authority. 0 means 30 s.
	Timeout time.Duration
	// Logger gets state changes and failures. What a [rotation.Identity] logs when it
	// comes into effect is here at debug level only. nil means slog.Default.
	Logger *slog.Logger
	// DialContext replaces net.Dialer, for tunnels and tests. TLS stays ours.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Source obtains, stores and renews one identity. It implements
// rotation.Source.
type Source struct {
	cfg          Config // complete: no field left to default
	pin          *fingerprint
	store        *store // nil when in memory
	pending      pendingKeys
	now          func() time.Time
	random       func() float64 // uniform in [0, 1)
	busy         atomic.Bool
	status       atomic.Pointer[Status]
	skew         atomic.Int64             // ns that the authority's clock is ahead
	receivedHead atomic.Pointer[logHead]  // came with a certificate and is not kept yet
	listHolder   atomic.Pointer[identity] // by whose lists the authority is judged; nil before there is one

	// These belong to the one Watch that runs.
	failed    int
	notBefore time.Time
	kept      *identity // published last: what a Watch that is called again begins with when nothing is on disk
}

// New checks cfg and touches neither disk nor network.
func New(cfg Config) (*Source, error) {
	s := &Source{cfg: cfg, now: time.Now, random: rand.Float64}
	var problems []error
	if _, err := parseURL(cfg.URL); err != nil {
		problems = append(problems, err)
	}
	if cfg.RootFingerprint != "" {
		pin, err := parseFingerprint(cfg.RootFingerprint)
		if err != nil {
			problems = append(problems, err)
		}
		s.pin = pin
	}
	switch {
	case cfg.InMemory && cfg.Dir != "":
		problems = append(problems, errors.New("both Dir and InMemory are set"))
	case !cfg.InMemory && cfg.Dir == "":
		problems = append(problems, errors.New("no directory to keep the identity in (Dir, or InMemory by choice)"))
	case cfg.InMemory && cfg.Token == nil:
		problems = append(problems, errors.New("no token source, and nothing is stored in memory: there would be no way to a certificate"))
	case cfg.Dir != "":
		s.store = &store{dir: cfg.Dir, lost: s.lostAccess}
		s.pending.dir = cfg.Dir
	}
	if err := checkAuthorityName(cfg.AuthorityName); err != nil {
		problems = append(problems, err)
	}
	if err := cfg.KeyType.check(); err != nil {
		problems = append(problems, err)
	}
	if cfg.TrustRefresh < 0 || cfg.Timeout < 0 {
		problems = append(problems, errors.New("a duration is negative"))
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("configuring enrolment: %w", errors.Join(problems...))
	}
	if s.cfg.Timeout == 0 {
		s.cfg.Timeout = defaultTimeout
	}
	if s.cfg.Logger == nil {
		s.cfg.Logger = slog.Default()
	}
	if s.cfg.DialContext == nil {
		s.cfg.DialContext = (&net.Dialer{Timeout: s.cfg.Timeout}).DialContext
	}
	return s, nil
}

// lostAccess tells that a file could not be given to whom its predecessor was.
func (s *Source) lostAccess(path string) {
	s.cfg.Logger.Warn("owner or group of a renewed file not kept", slog.String("path", path))
}

// wall is the present without its monotonic reading: on Linux and macOS that
// one stands still while the machine sleeps, and a renewal must not.
func (s *Source) wall() time.Time { return s.now().Round(0) }
