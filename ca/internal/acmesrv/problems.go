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

// problem answers an error, and charges the address for it: a refusal costs the
// authority a signature check, and its sender next to nothing.
func (s *Server) problem(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	if r.Context().Err() == nil && store.Unavailable(err) {
		p = problem.New(problem.ServerInternal, denial.DatabaseAway).With(http.StatusServiceUnavailable)
		w.Header().Set("Retry-After", denial.RetryDatabase)
	}
	switch {
	case p.Status < http.StatusInternalServerError:
		s.authority.Charge(r) // anybody can have an account, so having one excuses nothing
	case r.Context().Err() == nil:
		s.logger.ErrorContext(r.Context(), "request failed", "path", chi.RouteContext(r.Context()).RoutePattern(), "err", err)
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
	var bad *denial.RequestError
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
	case errors.As(err, &bad):
		return problem.New(problem.Malformed, "%s", bad.Text).With(bad.Status)
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
