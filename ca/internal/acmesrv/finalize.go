package acmesrv

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/smallstep/certificates/acme"

	"github.com/artstore/artstore-pki/ca/internal/acmestore"
	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/ca/internal/pkcs10"
	"github.com/artstore/artstore-pki/ca/internal/problem"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// postFinalize issues the certificate of an order (RFC 8555 §7.4), by [Authority.Issue]. An
// order that is valid already is answered as it is, whatever the request contains.
//
// The certificate, its event, the spent token of the order and the new status of the order
// are one commit. A crash before it leaves the order ready, and the client can finalize it
// again. A crash after it leaves the order valid with the address of its certificate, which
// the client fetches.
func (s *session) postFinalize(w http.ResponseWriter, r *http.Request) error {
	o, err := s.ownOrder(r)
	if err != nil {
		return err
	}
	switch o.Status { // before the CSR is parsed, which includes a signature check
	case acme.StatusReady:
	case acme.StatusValid:
		return s.writeOrder(w, http.StatusOK, o)
	case acme.StatusInvalid:
		why := "it failed"
		if o.Error != nil {
			why = o.Error.Detail
		}
		return problem.New(problem.OrderNotReady, "the order is invalid: %s; make another one", why)
	default:
		return problem.New(problem.OrderNotReady, "the order is %s: not all of its authorizations are valid yet", o.Status)
	}
	csr, err := parseFinalize(s.call.payload)
	if err != nil {
		return err
	}
	req, err := s.requestFor(r, o, csr)
	if err != nil {
		s.authority.CountDenial(err)
		return err
	}
	if err := s.authority.Issue(r.Context(), req); err != nil {
		return err
	}
	if o, err = s.record.Order(r.Context(), o.ID); err != nil {
		return err
	}
	return s.writeOrder(w, http.StatusOK, o)
}

// parseFinalize returns the CSR of a request to finalize, with its signature verified. The
// errors are malformed for the payload, and badCSR for the CSR itself (RFC 8555 §7.4).
func parseFinalize(payload []byte) (*x509.CertificateRequest, error) {
	var req struct {
		CSR string `json:"csr"`
	}
	if err := json.Unmarshal(payload, &req); err != nil {
		return nil, malformed("the payload is not {csr}")
	}
	der, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(req.CSR, "=")) // some clients pad
	if err != nil {
		return nil, malformed("csr: not base64url")
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, problem.New(problem.BadCSR, "the request for a certificate does not parse (PKCS #10 in DER)")
	}
	if err := pkcs10.Check(csr); err != nil {
		return nil, problem.New(problem.BadCSR, "%v", err)
	}
	return csr, nil
}

// requestFor returns what [Authority.Issue] is asked for: the names of the order, for the
// service whose profile allows them. The profile is looked up again, because pki.yaml may
// have changed since the order was made.
func (s *session) requestFor(r *http.Request, o acmestore.Order, csr *x509.CertificateRequest) (req Request, err error) {
	p, err := s.profileFor(r, o.Identifiers, o.Profile)
	if err != nil {
		return req, err
	}
	list, err := matchOrder(o, csr)
	return Request{Order: o, Service: p.Name, Names: list, CSR: csr}, err
}

// matchOrder returns the names of an order, canonical and sorted, if the CSR asks for
// exactly these. A common name counts as one of them (RFC 8555 §7.4).
func matchOrder(o acmestore.Order, csr *x509.CertificateRequest) ([]string, error) {
	ordered, err := identifierNames(o.Identifiers)
	if err != nil {
		return nil, err
	}
	slices.Sort(ordered)
	asked, err := names.OfRequest(csr)
	if err != nil {
		return nil, denial.New(denial.Request, "%v", err)
	}
	common, err := names.CommonNames(csr)
	if err != nil {
		return nil, denial.New(denial.Request, "%v", err)
	}
	common = slices.DeleteFunc(common, func(cn string) bool { return cn == "" })
	if asked, err = names.CanonicalAll(append(asked, common...)); err != nil {
		return nil, denial.New(denial.Request, "the common name of the request: %v", err)
	}
	if !slices.Equal(asked, ordered) {
		return nil, problem.New(problem.BadCSR, "the request is for the names %q, the order for %q", asked, ordered)
	}
	return ordered, nil
}

// postCertificate answers the chain of an order in PEM, the leaf first and without the root
// (RFC 8555 §7.4.2, §9.1).
func (s *session) postCertificate(w http.ResponseWriter, r *http.Request) error {
	if err := s.postAsGet(); err != nil {
		return err
	}
	c, err := s.record.GetCertificate(r.Context(), chi.URLParam(r, "id"))
	if err != nil {
		return err
	}
	if c.AccountID != s.call.account.ID {
		return problem.New(problem.Unauthorized, "the certificate is another account's")
	}
	w.Header().Set("Content-Type", "application/pem-certificate-chain")
	_, _ = w.Write(pemfile.EncodeCertificates(append([]*x509.Certificate{c.Leaf}, c.Intermediates...))) //nolint:gosec // G705: PEM of our own certificates; a client that is gone gets nothing
	return nil
}
