// Package acmesrv is the ACME server of the authority (RFC 8555): accounts, orders,
// authorizations, challenges, key changes and revocations over HTTP.
//
//	server := acmesrv.New(acmesrv.Config{Rules: rules, Record: record, Authority: authority}, former)
//	r.Route(acmesrv.Prefix, func(r chi.Router) { acmesrv.Routes(r, currentServer) })
//
// routes.go says what there is; jws.go verifies a request before anything is stored for it, orders are held against
// the profiles (order.go), challenges are validated by ca/internal/challenge, and
// certificates come from the same pipeline as all others, which the server reaches
// through [Authority].
//
// Invariants:
//   - Nothing is stored for a request whose signature does not verify; the use of its
//     nonce is stored last (TestACMEGate, FuzzACME).
//   - No request has state beside the database, so any replica answers the next one
//     (TestACMEReplicas). What is in memory only limits.
//   - Certificate, event and order are one commit (TestACMEFinalizeOnce).
//   - A client learns of an error its own part only: a problem quotes no secret and no
//     server that was asked (FuzzBinding, FuzzKeyChange, FuzzOrder, FuzzAccount).
package acmesrv

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/acmestore"
	"github.com/artstore/artstore-pki/ca/internal/challenge"
	"github.com/artstore/artstore-pki/ca/internal/ratelimit"
	"github.com/artstore/artstore-pki/ca/internal/throttle"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record"
)

// Prefix is where the server is, below the root of the authority's host.
const Prefix = "/acme"

// sweepEvery is the shortest time between two sweeps of what is over.
const sweepEvery = 10 * time.Minute

// Authority is what the server asks of the authority. Each call acts under the
// configuration that the server was made with.
type Authority interface {
	// CheckDates returns the denial of dates that no certificate of the profile could
	// have now. The zero time leaves one open.
	CheckDates(p *policy.Service, notBefore, notAfter time.Time) error
	// Issue issues the certificate of an order and commits it together with the order.
	// It records denials. An order buys one certificate: the same key gets it again.
	Issue(ctx context.Context, req Request) error
	// Recorded returns the entry of exactly this certificate. If the record has none, the
	// error is a [denial.RequestError].
	Recorded(ctx context.Context, cert *x509.Certificate) (record.Certificate, error)
	// Revoke commits a revocation. If the certificate was revoked before, the error is a
	// [denial.RequestError].
	Revoke(ctx context.Context, req Revocation) error
	// CountDenial counts an error, if it is a denial. It records nothing: a client that has
	// proven nothing yet could fill the record.
	CountDenial(err error)
	// Charge makes the address of a request pay for one that was refused.
	Charge(r *http.Request)
	// Life ends with the authority. Validations go on in it when the request that asked
	// for them has ended.
	Life() context.Context
}

// Request asks for the certificate of an order that is ready.
type Request struct {
	Order   acmestore.Order
	Service string   // the profile
	Names   []string // of the order, canonical and sorted
	CSR     *x509.CertificateRequest
}

// Revocation asks for the revocation of a certificate in the record.
type Revocation struct {
	Entry   record.Certificate
	Account string // id of the account that ordered it; "" for the holder of its key
	Reason  int    // RFC 5280 §5.3.1
}

// Config is what a server works with. All fields are needed.
type Config struct {
	Rules     *policy.Rules // without a provisioner of type ACME every address is unknown
	Host      string        // of addresses, if that of a request is not the authority's
	Record    *acmestore.Store
	Authority Authority
	Logger    *slog.Logger
}

// Server answers requests under one configuration. It is safe for concurrent use.
type Server struct {
	rules     *policy.Rules
	host      string
	record    *acmestore.Store
	authority Authority
	logger    *slog.Logger

	validator *challenge.Validator
	accounts  *ratelimit.Buckets[netip.Prefix] // new accounts by address
	swept     *throttle.Throttle               // one for all configurations
}

// New makes the server of a configuration. former is that of the configuration before,
// or nil: counts of new accounts go on over a reload that does not change their limit.
func New(cfg Config, former *Server) *Server {
	s := &Server{rules: cfg.Rules, host: cfg.Host, record: cfg.Record, authority: cfg.Authority, logger: cfg.Logger, swept: new(throttle.Throttle)}
	if former != nil {
		s.swept = former.swept
	}
	p := cfg.Rules.ACME
	if p == nil {
		return s
	}
	s.validator = challenge.New(challenge.Config{Resolver: p.Resolver, HTTPPort: p.HTTPPort, TLSPort: p.TLSPort, Networks: p.Networks})
	s.accounts = ratelimit.New[netip.Prefix](policy.Rate{PerSecond: float64(p.AccountsPerHour) / time.Hour.Seconds(), Burst: p.AccountsPerHour})
	if former != nil && former.accounts != nil && former.accounts.Rate() == s.accounts.Rate() {
		s.accounts = former.accounts
	}
	return s
}

// sweep forgets what is over, now and then.
func (s *Server) sweep(ctx context.Context) {
	now := time.Now()
	if !s.swept.Due(now, sweepEvery) {
		return
	}
	if err := s.record.Sweep(context.WithoutCancel(ctx), now); err != nil {
		s.logger.WarnContext(ctx, "ACME orders not swept", "err", err)
	}
}
