// Package acmesrv is the ACME server of the authority (RFC 8555): accounts, orders,
// authorizations, challenges, key changes and revocations over HTTP.
//
//	server := acmesrv.New(acmesrv.Config{Rules: rules, Record: record, Authority: authority}, former)
//	r.Route(acmesrv.Prefix, func(r chi.Router) { acmesrv.Routes(r, currentServer) })
//
// routes.go lists the addresses. jws.go verifies a request before anything is stored for
// it. order.go compares orders with the profiles of pki.yaml. ca/internal/challenge
// validates challenges, ca/internal/acmestore keeps all state, and [Authority] issues: the
// server signs nothing itself.
//
// A caller must know that a handler needs the signed URL to be https and the host of the
// request to be a name of the authority, and that the size of a body is limited before the
// server sees it.
//
// Invariants:
//   - Nothing is stored for a request whose signature does not verify (TestACMEGate,
//     FuzzACME). The use of the nonce is stored last.
//   - All state is in the database, so any replica can answer the next request of a client
//     (TestACMEReplicas). Memory holds rate limits only.
//   - A certificate is replaced by one order (TestACMEReplaces).
//   - An order yields one certificate, however many requests finalize it at once
//     (TestACMEFinalizeOnce).
//   - A failed challenge tells the client its cause, and nothing of what the asked server
//     answered, neither in the problem nor in the log (TestACMEChallengeProblems).
//   - A payload that a client has signed is accepted or refused with a problem of the 4xx
//     range. None makes the server panic (FuzzBinding, FuzzKeyChange, FuzzOrder,
//     FuzzAccount).
package acmesrv

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/acmestore"
	"github.com/artstore/artstore-pki/ca/internal/ari"
	"github.com/artstore/artstore-pki/ca/internal/challenge"
	"github.com/artstore/artstore-pki/ca/internal/ratelimit"
	"github.com/artstore/artstore-pki/ca/internal/throttle"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record"
)

// Prefix is the path of the server on the authority's host. Addresses of accounts contain
// it, and clients keep those for years: another prefix would lose all accounts.
const Prefix = "/acme"

// sweepEvery is the shortest time between two sweeps, which delete expired orders and
// nonces, unused accounts and expired external account keys.
const sweepEvery = 10 * time.Minute

// Authority is what the server asks of the authority. Each call acts under the
// configuration that the server was made with.
type Authority interface {
	// CheckDates returns a [denial.Error] if no certificate of the profile could have these
	// dates now, and nil otherwise. The zero time is a date that the client did not ask for.
	CheckDates(p *policy.Service, notBefore, notAfter time.Time) error
	// Issue issues the certificate of an order and commits it together with the order.
	// It records denials. An order buys one certificate: a request with the same key gets the
	// same certificate again, a request with another key is refused.
	Issue(ctx context.Context, req Request) error
	// Recorded returns the entry of exactly this certificate. If the record has none, the
	// error is a [denial.RequestError].
	Recorded(ctx context.Context, cert *x509.Certificate) (record.Certificate, error)
	// RenewalInfo says when a certificate is to be renewed. A certificate that is not in the
	// record is a [denial.RequestError] with status 404.
	RenewalInfo(ctx context.Context, id ari.ID) (ari.Info, error)
	// Revoke commits a revocation. If the certificate was revoked before, the error is a
	// [denial.RequestError].
	Revoke(ctx context.Context, req Revocation) error
	// CountDenial counts an error in the metrics, if it is a denial. It records nothing: a
	// client that has proven no name yet could fill the record.
	CountDenial(err error)
	// Charge takes the cost of a refused request from the rate limit of its address.
	Charge(r *http.Request)
	// Life returns a context that ends with the authority. Validations run in it, so that
	// they complete when the client closes the request that asked for them.
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
	// Rules are those of pki.yaml. Without a provisioner of type ACME each request gets 404.
	Rules *policy.Rules
	// Host, with a port unless that is 443, is in the addresses of answers to a request
	// whose own host is none of the authority's names.
	Host      string
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

// New makes the server of a configuration. former is the server of the configuration
// before, or nil. A reload keeps the counts of new accounts by address, unless it changes
// their limit: otherwise each reload would allow an address its full number again.
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

// sweep deletes what has expired in the record, at most once in sweepEvery. The
// compare-and-swap lets one of several concurrent requests do it. An error is logged only:
// the request that came first is not at fault, and the next sweep deletes the same rows.
func (s *Server) sweep(ctx context.Context) {
	now := time.Now()
	if !s.swept.Due(now, sweepEvery) {
		return
	}
	if err := s.record.Sweep(context.WithoutCancel(ctx), now); err != nil {
		s.logger.WarnContext(ctx, "ACME orders not swept", "err", err)
	}
}
