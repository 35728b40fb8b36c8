package acmesrv

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/go-chi/chi/v5"
	"github.com/smallstep/certificates/acme"

	"github.com/artstore/artstore-pki/ca/internal/ari"
	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/ca/internal/problem"
	"github.com/artstore/artstore-pki/internal/certs"
)

// getRenewalInfo says when a certificate is to be renewed (RFC 9773 §4). Whoever has seen a
// certificate may ask: the answer follows from its dates, and from what the authority wants
// everybody to know.
func (s *session) getRenewalInfo(w http.ResponseWriter, r *http.Request) error {
	id, err := ari.Parse(chi.URLParam(r, "id"))
	if err != nil {
		return malformed("%v", err)
	}
	info, err := s.authority.RenewalInfo(r.Context(), id)
	if unknown, ok := errors.AsType[*denial.RequestError](err); ok {
		return problem.New(problem.Malformed, "%s", unknown.Text).With(unknown.Status)
	}
	if err != nil {
		return err
	}
	w.Header().Set("Retry-After", strconv.Itoa(int(info.RetryAfter.Seconds()))) // RFC 9773 §4.3
	return writeResource(w, http.StatusOK, info)
}

// replacedBy returns the name of the certificate that an order replaces, "" for none.
// It must be one that the same account has ordered for one of the names, and that no other
// order replaces (RFC 9773 §5).
func (s *session) replacedBy(r *http.Request, req orderRequest) (string, error) {
	if req.Replaces == "" {
		return "", nil
	}
	id, err := ari.Parse(req.Replaces)
	if err != nil {
		return "", malformed("replaces: %v", err)
	}
	entry, err := s.record.GetCertificate(r.Context(), id.Serial)
	if _, unknown := errors.AsType[*acme.Error](err); unknown || err == nil && entry.AccountID != s.call.account.ID {
		return "", forbidden("replaces: this account has ordered no such certificate")
	}
	if err != nil {
		return "", err
	}
	if ari.Of(entry.Leaf) != id {
		return "", malformed("replaces: the certificate with this serial has another issuer")
	}
	if !sharesName(req.Identifiers, certs.Names(entry.Leaf)) {
		return "", malformed("replaces: the order has none of the names of that certificate")
	}
	replaced, err := s.record.Replaced(r.Context(), req.Replaces)
	if err != nil {
		return "", err
	}
	if replaced {
		return "", problem.New(problem.AlreadyReplaced, "another order replaces this certificate; order without replaces").With(http.StatusConflict)
	}
	return req.Replaces, nil
}

// sharesName reports whether an identifier of an order is among the names of a certificate.
func sharesName(ids []acme.Identifier, have []string) bool {
	for _, id := range ids {
		name, err := names.Canonical(id.Value)
		for _, h := range have {
			if err == nil && h == name {
				return true
			}
		}
	}
	return false
}
