package acmesrv

import (
	"errors"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/smallstep/certificates/acme"

	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/problem"
	"github.com/artstore/artstore-pki/ca/store"
)

// problem answers an error with a problem document, and charges the address of the client
// for a refusal: it costs the authority a signature check, and the client next to nothing.
// An error of the authority itself is logged, and charged to nobody. A database that is
// away is 503 with Retry-After, which clients take for a reason to try again.
func (s *Server) problem(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	if r.Context().Err() == nil && store.Unavailable(err) {
		p = problem.New(problem.ServerInternal, denial.DatabaseAway).With(http.StatusServiceUnavailable)
		w.Header().Set("Retry-After", denial.RetryDatabase)
	}
	switch {
	case p.Status < http.StatusInternalServerError:
		s.authority.Charge(r) // with an account too: anybody can register one
	case r.Context().Err() == nil:
		s.logger.ErrorContext(r.Context(), "request failed", "path", chi.RouteContext(r.Context()).RoutePattern(), "err", err)
	}
	p.Write(w)
}

// malformed returns a problem of type malformed, whose status is 400.
func malformed(format string, args ...any) error {
	return problem.New(problem.Malformed, format, args...)
}

// problemOf translates an error of any of our packages to a problem. An error of a kind
// that it does not know becomes serverInternal without the text of the error, which may
// tell of files, databases or addresses of the authority.
func problemOf(err error) *problem.Document {
	var p *problem.Document
	var stored *acme.Error
	var denied *denial.Error
	var bad *denial.RequestError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &stored): // an error of smallstep's types, which the store returns
		p = problem.New(problem.TypeOf(stored.Type), "%s", stored.Detail)
		if stored.Status != 0 {
			p.Status = stored.Status
		}
		return p
	case errors.As(err, &denied):
		return problem.New(problemType(denied.Rule), "%s", denied.Error())
	case errors.As(err, &bad):
		return problem.New(problem.Malformed, "%s", bad.Text).With(bad.Status)
	case errors.Is(err, store.ErrOrderGone):
		return problem.New(problem.OrderNotReady, "%s", store.ErrOrderGone.Error())
	}
	return problem.Of(err)
}

// problemType maps the rule of a denial to a type of RFC 8555 §6.7. Rules on names are
// rejectedIdentifier and rules on the key or the request badCSR, so that a client knows
// which part of its order to change.
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
