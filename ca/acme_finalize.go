package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/smallstep/certificates/acme"
	"github.com/smallstep/certificates/api/render"
	"github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/provisioner"

	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/ca/store"
)

// postFinalize is the last step of an order (RFC 8555 §7.4). The order's own logic
// is smallstep's; what it asks for a certificate is the pipeline.
//
// The crash story: certificate, event, the order's key and the order itself are
// one commit. Before it the order is ready and can be finalized again; after it
// the order is valid and points to its certificate, which the client fetches.
func (a *Authority) postFinalize(w http.ResponseWriter, r *http.Request, s *acmeSession) error {
	ctx := r.Context()
	s.addNonce(w, r)
	o, asked, err := s.Order(ctx, chi.URLParam(r, "ordID"))
	if err != nil {
		return err
	}
	prov := acme.MustProvisionerFromContext(ctx)
	if o.AccountID != s.call.account.ID || o.ProvisionerID != prov.GetID() {
		return acme.NewDetailedError(acme.ErrorUnauthorizedType, "the order is another account's")
	}
	csr, err := parseFinalize(s.call.payload)
	if err != nil {
		return err
	}
	if err := o.Finalize(ctx, s, csr, acmeIssuer{s.st.embedded, s, o, asked}, prov); err != nil {
		return err
	}
	linker := acme.MustLinkerFromContext(ctx)
	linker.LinkOrder(ctx, o)
	w.Header().Set("Location", linker.GetLink(ctx, acme.OrderLinkType, o.ID))
	render.JSON(w, r, o)
	return nil
}

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
		return nil, acme.NewDetailedError(acme.ErrorBadCSRType, "it does not parse")
	}
	if err := checkRequest(csr); err != nil {
		return nil, acme.NewDetailedError(acme.ErrorBadCSRType, "%v", err)
	}
	return csr, nil
}

// acmeIssuer is what an order asks for its certificate. Signing is ours; the rest
// of the interface is not called.
type acmeIssuer struct {
	*authority.Authority
	s     *acmeSession
	order *acme.Order
	asked bool // the client named the end
}

// SignWithContext issues for an order that is ready: challenges for all its
// names were answered, and smallstep has compared them with the request. Its
// options and templates do not count; the profile decides.
func (i acmeIssuer) SignWithContext(ctx context.Context, csr *x509.CertificateRequest, _ provisioner.SignOptions, _ ...provisioner.SignOption) ([]*x509.Certificate, error) {
	v, err := i.verified(csr)
	if err != nil {
		return nil, problemOf(err)
	}
	done, err := i.s.a.issue(ctx, i.s.st, v)
	if err != nil {
		return nil, problemOf(err)
	}
	return append([]*x509.Certificate{done.leaf}, done.chain...), nil
}

// verified is the request of an account for the names of its order, in the name
// of the one service that has them.
func (i acmeIssuer) verified(csr *x509.CertificateRequest) (v verified, err error) {
	p, err := i.s.st.acmeProfile(i.order.Identifiers)
	if err != nil {
		return v, err
	}
	if v.names, err = names.OfRequest(csr); err != nil {
		return v, refuse(ruleRequest, "%v", err)
	}
	common, err := names.CommonNames(csr)
	if err != nil {
		return v, refuse(ruleRequest, "%v", err)
	}
	for _, cn := range common { // smallstep has looked at the last one
		if name, err := names.Canonical(cn); cn != "" && (err != nil || !slices.Contains(v.names, name)) {
			return v, refuse(ruleRequest, "the common name %.80q is not one of the names of the request", cn)
		}
	}
	if i.asked {
		v.asked.notAfter = i.order.NotAfter
	}
	v.caller = caller{kind: byAccount, name: "acme " + i.order.AccountID, service: p.service, credentials: []credential{{"service " + p.service, refusalsPerHour}}}
	v.action, v.order = actSign, i.order.ID
	v.key, v.keyHash = csr.PublicKey, store.KeyHash(csr.RawSubjectPublicKeyInfo)
	v.provisioner = provisioner.Extension{Type: provisioner.TypeACME, Name: i.s.st.rules.acme.name}
	// An order buys one certificate, like a token: the same key gets it again.
	v.token = store.Token{
		Hash:    sha256.Sum256([]byte("acme order\x00" + i.order.ID)),
		Expires: i.order.ExpiresAt.Add(2 * tokenLeeway),
	}
	return v, nil
}

// CreateCertificate names the certificate that the commit has stored already.
func (s *acmeSession) CreateCertificate(_ context.Context, c *acme.Certificate) error {
	c.ID = c.Leaf.SerialNumber.String()
	return nil
}
