package ca

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/smallstep/certificates/acme"
	acmeapi "github.com/smallstep/certificates/acme/api"
	"github.com/smallstep/certificates/api/log"
	"github.com/smallstep/certificates/authority"

	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/ca/store"
)

// ACME (RFC 8555) is smallstep's where it is about orders and challenges, and
// ours where it decides: the gate in front (acme_jws.go) verifies a request
// before anything is stored for it, orders are held against the profiles
// (acme_order.go), and certificates come from the pipeline of everyone else
// (acme_finalize.go).

const acmePrefix = "/acme"

// acmeRoutes mounts smallstep's routes, each behind the gate, and puts ours in
// the place of the two that would sign and revoke past the pipeline.
func (a *Authority) acmeRoutes(r chi.Router) {
	acmeapi.Route(acmeRouter(func(method, pattern string, h http.HandlerFunc) {
		signed := acmeHandler(func(w http.ResponseWriter, r *http.Request, _ *acmeSession) error {
			h(w, r)
			return nil
		})
		switch {
		case method != http.MethodPost:
			r.MethodFunc(method, pattern, a.acmeOpen(h))
			return
		case strings.HasSuffix(pattern, "/finalize"):
			signed = a.postFinalize
		case strings.HasSuffix(pattern, "/revoke-cert"):
			signed = a.postACMERevoke
		}
		r.MethodFunc(method, pattern, a.acmeSigned(signed))
	}))
}

// acmeRouter is the router that smallstep's routes are registered with.
type acmeRouter func(method, pattern string, h http.HandlerFunc)

func (f acmeRouter) MethodFunc(method, pattern string, h http.HandlerFunc) { f(method, pattern, h) }

// acmeHandler answers a verified request; its error becomes a problem document.
type acmeHandler func(w http.ResponseWriter, r *http.Request, s *acmeSession) error

// acmeOpen serves what needs no signature: the directory and nonces.
func (a *Authority) acmeOpen(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s, err := a.newSession(r)
		if err != nil {
			a.problem(w, r, err)
			return
		}
		h(w, r.WithContext(s.context(r.Context())))
	}
}

// acmeSigned lets nobody past whose signature does not verify.
func (a *Authority) acmeSigned(h acmeHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s, err := a.newSession(r)
		if err == nil {
			err = s.verify(r)
		}
		if err != nil {
			// Every answer brings the nonce of the next request (RFC 8555 §6.5).
			if s != nil {
				s.addNonce(w, r)
			}
			a.problem(w, r, err)
			return
		}
		a.sweepACME(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(s.call.body))
		ctx := s.context(r.Context())
		s.linker().Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r, s); err != nil {
				a.problem(w, r, err)
			}
		})).ServeHTTP(w, r.WithContext(ctx))
	}
}

// acmeSession is one request of ACME, and the storage that smallstep's handlers
// see during it. Nothing of it lives longer: what matters between requests is in
// the database, where every replica finds it.
type acmeSession struct {
	*store.ACME
	a    *Authority
	st   *state
	call acmeCall
	made []*acme.Authorization // that wait for their order
	noEAB
}

func (a *Authority) newSession(r *http.Request) (*acmeSession, error) {
	st := a.state.Load()
	if st.rules.acme == nil || chi.URLParam(r, "provisionerID") != st.rules.acme.name {
		p := acme.NewDetailedError(acme.ErrorMalformedType, "no ACME provisioner of this name here")
		p.Status = http.StatusNotFound
		return nil, p
	}
	return &acmeSession{ACME: a.record.ACME(), a: a, st: st}, nil
}

// context is what smallstep's handlers look up their parts in.
func (s *acmeSession) context(ctx context.Context) context.Context {
	ctx = log.WithErrorLogger(ctx, func(_ http.ResponseWriter, r *http.Request, err error) {
		var p *acme.Error
		if !errors.As(err, &p) || p.Status >= http.StatusInternalServerError && p.Status != http.StatusNotImplemented {
			s.a.logger.ErrorContext(r.Context(), "request failed", "path", r.URL.Path, "err", err)
		}
	})
	ctx = authority.NewContext(ctx, s.st.embedded)
	return acme.NewContext(ctx, s, s.st.validator, s.linker(), nil)
}

func (s *acmeSession) linker() acme.Linker {
	return acme.NewLinker(names.URLHost(s.st.config.DNSNames), strings.TrimPrefix(acmePrefix, "/"))
}

func (s *acmeSession) addNonce(w http.ResponseWriter, r *http.Request) {
	nonce, err := s.CreateNonce(r.Context())
	if err != nil {
		return // the answer is an error already
	}
	w.Header().Set("Replay-Nonce", string(nonce))
	w.Header().Set("Cache-Control", "no-store")
}

// problem answers an error as RFC 7807 has it.
func (a *Authority) problem(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	if p.Status < http.StatusInternalServerError {
		a.charge(r) // anybody can have an account, so having one excuses nothing
	}
	if p.Status >= http.StatusInternalServerError && r.Context().Err() == nil {
		a.logger.ErrorContext(r.Context(), "request failed", "path", r.URL.Path, "err", err)
	}
	p.Render(w, r)
}

func rateLimited(text string) *acme.Error {
	p := acme.NewDetailedError(acme.ErrorRateLimitedType, "%s", text)
	p.Status = http.StatusTooManyRequests
	return p
}

func problemOf(err error) *acme.Error {
	var p *acme.Error
	var denied *refusal
	var s *stranger
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &denied):
		kind := acme.ErrorUnauthorizedType
		switch denied.rule {
		case ruleACME, ruleNames, ruleProfile, ruleLoopback:
			kind = acme.ErrorRejectedIdentifierType
		case ruleKey, ruleSound, ruleRequest:
			kind = acme.ErrorBadCSRType
		case ruleLifetime:
			kind = acme.ErrorMalformedType
		}
		return acme.NewDetailedError(kind, "%s", denied.Error())
	case errors.As(err, &s):
		p = acme.NewDetailedError(acme.ErrorMalformedType, "%s", s.text)
		p.Status = s.status
		return p
	case errors.Is(err, store.ErrOrderGone):
		return acme.NewDetailedError(acme.ErrorOrderNotReadyType, "%s", store.ErrOrderGone.Error())
	}
	return acme.WrapErrorISE(err, "internal error")
}

// sweepACME forgets what is over, now and then.
func (a *Authority) sweepACME(ctx context.Context) {
	now, last := time.Now(), a.acmeSwept.Load()
	if now.Unix()-last < int64(sweepEvery/time.Second) || !a.acmeSwept.CompareAndSwap(last, now.Unix()) {
		return
	}
	if err := a.record.SweepACME(context.WithoutCancel(ctx), now); err != nil {
		a.logger.WarnContext(ctx, "ACME orders not swept", "err", err)
	}
}
