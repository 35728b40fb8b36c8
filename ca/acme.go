package ca

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/smallstep/certificates/acme"

	"github.com/artstore/artstore-pki/ca/internal/acmestore"
	"github.com/artstore/artstore-pki/ca/internal/challenge"
	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/problem"
	"github.com/artstore/artstore-pki/ca/internal/ratelimit"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/store"
)

// ACME (RFC 8555). The gate (acme_jws.go) verifies a request before anything is
// stored for it, orders are held against the profiles (acme_order.go), challenges
// are validated by ca/internal/challenge, and certificates come from the same
// pipeline as all others (acme_finalize.go). A request has no state beside the
// database, so any replica answers the next one.

const acmePrefix = "/acme"

// acmeHandler answers a verified request; its error becomes a problem document.
type acmeHandler func(s *acmeSession, w http.ResponseWriter, r *http.Request) error

func (a *Authority) acmeRoutes(r chi.Router) {
	r.NotFound(func(w http.ResponseWriter, _ *http.Request) {
		problem.New(problem.Malformed, "ACME has no such address; the directory has them all").With(http.StatusNotFound).Write(w)
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) { // RFC 8555 §6.3
		problem.New(problem.Malformed, "%s is not the method of this address: ACME reads with POST-as-GET", r.Method).With(http.StatusMethodNotAllowed).Write(w)
	})
	r.Route("/{provisioner}", func(r chi.Router) {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			r.MethodFunc(method, "/directory", a.unsignedRoute((*acmeSession).getDirectory))
			r.MethodFunc(method, "/new-nonce", a.unsignedRoute((*acmeSession).getNonce))
		}
		for pattern, h := range map[string]acmeHandler{
			"/new-account":         (*acmeSession).postNewAccount,
			"/account/{id}":        (*acmeSession).postAccount,
			"/account/{id}/orders": (*acmeSession).postOrders,
			"/key-change":          (*acmeSession).postKeyChange,
			"/new-order":           (*acmeSession).postNewOrder,
			"/order/{id}":          (*acmeSession).postOrder,
			"/order/{id}/finalize": (*acmeSession).postFinalize,
			"/authz/{id}":          (*acmeSession).postAuthorization,
			"/challenge/{az}/{id}": (*acmeSession).postChallenge,
			"/certificate/{id}":    (*acmeSession).postCertificate,
			"/revoke-cert":         (*acmeSession).postRevoke,
		} {
			r.Post(pattern, a.signedRoute(h))
		}
	})
}

// unsignedRoute serves what needs no signature: the directory and nonces.
func (a *Authority) unsignedRoute(h acmeHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s, err := a.newSession(r)
		if err == nil {
			err = h(s, w, r)
		}
		if err != nil {
			a.problem(w, r, err)
		}
	}
}

// signedRoute serves requests whose signature verifies.
func (a *Authority) signedRoute(h acmeHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s, err := a.newSession(r)
		if s != nil { // every answer brings the nonce of the next request (RFC 8555 §6.5)
			s.addNonce(w, r)
			w.Header().Add("Link", "<"+s.link("directory")+`>;rel="index"`) // RFC 8555 §7.1
		}
		if err == nil {
			err = s.verify(r)
		}
		if err == nil {
			a.sweepACME(r.Context())
			err = h(s, w, r)
		}
		if err != nil {
			a.problem(w, r, err)
		}
	}
}

// acmeSession is one request.
type acmeSession struct {
	store *acmestore.Store
	a     *Authority
	st    *state
	base  string // of all addresses: https://host/acme/provisioner/
	call  verifiedJWS
}

// newSession refuses a host that is not ours: it goes into every address that the
// client is told to follow. The session is there also then, for the nonce.
func (a *Authority) newSession(r *http.Request) (*acmeSession, error) {
	st := a.state.Load()
	if st.rules.ACME == nil || chi.URLParam(r, "provisioner") != st.rules.ACME.Name {
		return nil, problem.New(problem.Malformed, "there is no ACME provisioner of this name").With(http.StatusNotFound)
	}
	u := &url.URL{Scheme: "https", Host: r.Host, Path: acmePrefix + "/" + st.rules.ACME.Name + "/"}
	s := &acmeSession{store: a.acmeRecord, a: a, st: st, base: u.String()}
	if !st.rules.IsOwnHost(u.Hostname()) {
		s.base = "https://" + st.config.PublicHost() + u.Path
		return s, malformed("the host of the request is none of this authority's names (pki.yaml, dns_names)")
	}
	return s, nil
}

// link is the address of a resource.
func (s *acmeSession) link(parts ...string) string { return s.base + strings.Join(parts, "/") }

func (s *acmeSession) addNonce(w http.ResponseWriter, r *http.Request) {
	nonce, err := s.store.CreateNonce(r.Context())
	if err != nil {
		return // the database is gone: the request fails anyway
	}
	w.Header().Set("Replay-Nonce", string(nonce))
	w.Header().Set("Cache-Control", "no-store")
}

// getNonce answers GET and HEAD (RFC 8555 §7.2).
func (s *acmeSession) getNonce(w http.ResponseWriter, r *http.Request) error {
	nonce, err := s.store.CreateNonce(r.Context())
	if err != nil {
		return err
	}
	w.Header().Set("Replay-Nonce", string(nonce))
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Add("Link", "<"+s.link("directory")+`>;rel="index"`)
	if r.Method == http.MethodGet {
		w.WriteHeader(http.StatusNoContent)
	}
	return nil
}

// getDirectory answers what there is (RFC 8555 §7.1.1), with the profiles of
// draft-ietf-acme-profiles: they are the services with acme: true.
func (s *acmeSession) getDirectory(w http.ResponseWriter, _ *http.Request) error {
	type meta struct {
		ExternalAccountRequired bool              `json:"externalAccountRequired,omitempty"`
		Profiles                map[string]string `json:"profiles,omitempty"`
	}
	m := meta{ExternalAccountRequired: s.st.rules.ACME.RequireEAB, Profiles: make(map[string]string)}
	for service, p := range s.st.rules.Services {
		if p.ACME {
			m.Profiles[service] = "certificates of service " + service + ", " + p.Lifetimes.Default.String() + " unless asked otherwise"
		}
	}
	return writeResource(w, http.StatusOK, map[string]any{
		"newNonce": s.link("new-nonce"), "newAccount": s.link("new-account"), "newOrder": s.link("new-order"),
		"revokeCert": s.link("revoke-cert"), "keyChange": s.link("key-change"), "meta": m,
	})
}

func writeResource(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a client that is gone gets nothing
	return nil
}

// problem answers an error, and charges the address for it: a refusal costs the
// authority a signature check, and its sender next to nothing.
func (a *Authority) problem(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	if r.Context().Err() == nil && store.Unavailable(err) {
		p = problem.New(problem.ServerInternal, denial.DatabaseAway).With(http.StatusServiceUnavailable)
		w.Header().Set("Retry-After", denial.RetryDatabase)
	}
	switch {
	case p.Status < http.StatusInternalServerError:
		a.charge(r) // anybody can have an account, so having one excuses nothing
	case r.Context().Err() == nil:
		a.logger.ErrorContext(r.Context(), "request failed", "path", chi.RouteContext(r.Context()).RoutePattern(), "err", err)
	}
	p.Write(w)
}

func malformed(format string, args ...any) error {
	return problem.New(problem.Malformed, format, args...)
}

// problemOf puts an error in the words of ACME.
func problemOf(err error) *problem.Document {
	var p *problem.Document
	var stored *acme.Error
	var denied *denial.Error
	var s *denial.RequestError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &stored): // of the store
		p = problem.New(problem.TypeOf(stored.Type), "%s", stored.Detail)
		if stored.Status != 0 {
			p.Status = stored.Status
		}
		return p
	case errors.As(err, &denied):
		return problem.New(problemType(denied.Rule), "%s", denied.Error())
	case errors.As(err, &s):
		return problem.New(problem.Malformed, "%s", s.Text).With(s.Status)
	case errors.Is(err, store.ErrOrderGone):
		return problem.New(problem.OrderNotReady, "%s", store.ErrOrderGone.Error())
	}
	return problem.Of(err)
}

// problemType is the type of a refusal of the pipeline.
func problemType(rule denial.Rule) problem.Type {
	switch rule {
	case denial.ACME, denial.Names, denial.Profile, denial.Loopback:
		return problem.RejectedIdentifier
	case denial.KeyType, denial.SoundPublicKey, denial.Request:
		return problem.BadCSR
	case denial.Lifetime:
		return problem.Malformed
	}
	return problem.Unauthorized
}

// acmeState is what ACME keeps in memory of one state.
type acmeState struct {
	validator *challenge.Validator
	accounts  *ratelimit.Buckets[netip.Prefix] // new accounts by address
}

// newACME returns nil if there is no provisioner of ACME. Counts of new accounts
// go on over a reload that does not change their limit.
func newACME(rules *policy.ACME, old *state) *acmeState {
	if rules == nil {
		return nil
	}
	out := &acmeState{
		validator: challenge.New(challenge.Config{Resolver: rules.Resolver, HTTPPort: rules.HTTPPort, TLSPort: rules.TLSPort, Networks: rules.Networks}),
		accounts:  ratelimit.New[netip.Prefix](policy.Rate{PerSecond: float64(rules.AccountsPerHour) / time.Hour.Seconds(), Burst: rules.AccountsPerHour}),
	}
	if old != nil && old.acme != nil && old.acme.accounts.Rate() == out.accounts.Rate() {
		out.accounts = old.acme.accounts
	}
	return out
}

// sweepACME forgets what is over, now and then.
func (a *Authority) sweepACME(ctx context.Context) {
	now, last := time.Now(), a.acmeSwept.Load()
	if now.Unix()-last < int64(sweepEvery/time.Second) || !a.acmeSwept.CompareAndSwap(last, now.Unix()) {
		return
	}
	if err := a.acmeRecord.Sweep(context.WithoutCancel(ctx), now); err != nil {
		a.logger.WarnContext(ctx, "ACME orders not swept", "err", err)
	}
}
