package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"

	"github.com/smallstep/certificates/authority/provisioner"

	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/joseheader"
	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/ca/internal/validity"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/certs"
)

// A token of type X5C is signed with the key of a certificate that is in its header
// (RFC 7515 §4.1.6). It can ask for names of that certificate only, and not for longer than
// that certificate lives. If this authority has issued the certificate, the new one
// belongs to its lineage, so that one revocation ends both.

// tokenChains returns the chains of the certificate in the header of a token, leaf first,
// after they were verified to a root of the provisioner and the key usage was checked
// (RFC 5280 §4.2.1.3). The caller checks the signature of the token.
func tokenChains(p policy.X5C, head joseheader.Header) ([][]*x509.Certificate, error) {
	chain, err := head.Certificates("x5c", joseheader.MaxChain)
	if err != nil {
		return nil, err
	}
	leaf := chain[0]
	if !descends(chain, p.Roots) {
		return nil, errors.New("its certificate does not chain to a root of its provisioner")
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: certs.Pool(p.Roots...), Intermediates: certs.Pool(chain[1:]...), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil { // dates, usages or name constraints
		return nil, errors.New("its certificate does not verify")
	}
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return nil, errors.New("its certificate is not for signatures")
	}
	return chains, nil
}

// descends reports whether the signatures of a chain, leaf first, lead from one of the
// roots to the leaf. It begins at the root, so each signature is checked with a key that
// is trusted already, and a made-up chain of costly keys fails at the first check.
// crypto/x509 begins at the leaf, and may check a hundred signatures of such a chain.
func descends(chain, roots []*x509.Certificate) bool {
	trusted := slices.Clone(roots)
	for _, c := range slices.Backward(chain) {
		signs := func(parent *x509.Certificate) bool {
			return c.Equal(parent) || certs.Issued(parent, c)
		}
		if !slices.ContainsFunc(trusted, signs) {
			return false
		}
		trusted = append(trusted, c)
	}
	return true
}

// authenticateX5C fills in v from the certificate of the token: caller, end of the proof,
// provisioner and, if this authority has issued the certificate, the lineage.
func (a *Authority) authenticateX5C(ctx context.Context, st *state, c *claims, v *verifiedRequest) error {
	serial := c.certificate.SerialNumber.String()
	v.caller = caller{
		kind: callerX5C, name: "x5c " + c.Issuer + "/" + c.certificate.Subject.CommonName + "/" + serial, serial: serial,
		credentials: certificateCredentials(c.certificate),
	}
	v.proof = validity.Proof{End: c.certificate.NotAfter, What: "the certificate of the token", Remedy: "sign a token with a newer one"}
	v.provisioner = provisioner.Extension{Type: provisioner.TypeX5C, Name: c.Issuer}
	entry, err := a.lookUpIssued(ctx, st, c)
	if err != nil {
		return err
	}
	who := c.certificate.Subject.CommonName
	if entry != nil {
		v.previous, who = entry, entry.Service
		v.caller.service, v.caller.credentials = entry.Service, lineageCredentials(*entry)
	}
	if err := st.checkIssuers(c.chains); err != nil {
		return a.recordDenial(ctx, v.caller, accessRequest{action: actSign}, err)
	}
	if err := a.validateKey(c.certificate.PublicKey); err != nil { // others know such a key, so anybody can have signed the token
		return a.recordDenial(ctx, v.caller, accessRequest{action: actSign}, denial.New(denial.SoundPublicKey, "the key of the certificate of the token: %v", err))
	}
	// The subject of the token becomes the service. For a certificate of this authority it
	// must be the same service: a name that two services share must not lead from one to
	// the other.
	if c.Subject != who && (entry != nil || !slices.Contains(certs.Names(c.certificate), c.Subject)) {
		return a.recordDenial(ctx, v.caller, accessRequest{action: actSign}, denial.New(denial.Holder, "the certificate of the token is for %q, the token asks for %.80q", who, c.Subject))
	}
	v.caller.service = c.Subject
	return nil
}

// lookUpIssued returns the entry of the certificate of a token if this authority has issued
// it, and nil for one of another authority. A certificate that ends at one of our roots and
// is not in the record is refused: somebody has used a stolen key. That may be the key of
// an intermediate that is not in use any more.
func (a *Authority) lookUpIssued(ctx context.Context, st *state, c *claims) (*record.Certificate, error) {
	entry, err := a.lookUp(ctx, c.certificate)
	if err == nil {
		return &entry, nil
	}
	if _, wrong := errors.AsType[*denial.RequestError](err); !wrong {
		return nil, err
	}
	ours := slices.Concat(st.intermediates, st.roots)
	for _, i := range ours {
		if c.certificate.CheckSignatureFrom(i) == nil {
			return nil, err
		}
	}
	for _, chain := range c.chains {
		if slices.ContainsFunc(ours, chain[len(chain)-1].Equal) {
			return nil, err
		}
	}
	return nil, nil
}

// checkHolderNames refuses names that the certificate of the token does not have.
func (c *claims) checkHolderNames(asked []string) error {
	if c.certificate == nil {
		return nil
	}
	own, err := names.CanonicalAll(certs.Names(c.certificate))
	if err != nil {
		return denial.New(denial.Holder, "the certificate of the token has a name that is not one: %v", err)
	}
	for _, n := range asked {
		if !slices.Contains(own, n) {
			return denial.New(denial.Holder, "%q is not a name of the certificate that signed the token", n)
		}
	}
	return nil
}

// authenticateHolder authenticates a revocation by a token of type X5C. The holder may
// revoke the certificate that has signed the token, if it is in the record.
func (a *Authority) authenticateHolder(ctx context.Context, c *claims) (caller, error) {
	entry, err := a.lookUp(ctx, c.certificate)
	if err != nil {
		return caller{}, err
	}
	out := callerOf(entry)
	out.kind, out.name = callerX5C, "x5c "+c.Issuer+"/"+entry.Service+"/"+entry.Serial
	if err := a.state.Load().checkIssuers(c.chains); err != nil {
		return out, a.recordDenial(ctx, out, accessRequest{action: actRevoke}, err)
	}
	if serial, err := certs.ParseSerial(c.Subject); err != nil || serial != entry.Serial {
		return out, a.recordDenial(ctx, out, accessRequest{action: actRevoke}, denial.New(denial.Self, "%s may revoke certificate %s only", out.name, certs.HexSerial(entry.Serial)))
	}
	return out, nil
}
