package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"

	"github.com/smallstep/certificates/authority/provisioner"
	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// A token of type X5C is signed with the key of a certificate that it brings
// along. What it can ask for is less than that certificate has: names of its
// own, until its own end. One of ours stays in its lineage, so that revoking it
// ends what came of it.

// holder is the certificate of a token, or nil if the token brings none that
// chains to the roots of the provisioner. Its signature on the token is the
// provisioner's to check.
func (st *state) holder(name string, h jose.Header) *x509.Certificate {
	i := slices.IndexFunc(st.rules.x5cs, func(p x5c) bool { return p.name == name })
	if i < 0 {
		return nil
	}
	chains, err := h.Certificates(x509.VerifyOptions{
		Roots: pool(st.rules.x5cs[i].roots), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil { // also: there are none in the header
		return nil
	}
	return chains[0][0]
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// vouch completes a request with what the certificate of its token says.
func (a *Authority) vouch(ctx context.Context, st *state, c *claims, v *verified) error {
	v.caller.kind, v.caller.name = byHolder, "x5c "+c.Issuer+"/"+c.holder.Subject.CommonName+"/"+c.holder.SerialNumber.String()
	v.caller.serial, v.proof = c.holder.SerialNumber.String(), proofEnd{c.holder.NotAfter, "the certificate of the token", "sign a token with a newer one"}
	v.provisioner = provisioner.Extension{Type: provisioner.TypeX5C, Name: c.Issuer}
	entry, err := a.ours(ctx, st, c.holder)
	if err != nil {
		return err
	}
	who := c.holder.Subject.CommonName
	if entry != nil {
		v.previous, who = entry, entry.Service
	}
	// The subject becomes the service: one name that two services share must not
	// lead from the one to the other.
	if c.Subject != who && (entry != nil || !slices.Contains(pemfile.Names(c.holder), c.Subject)) {
		return a.turnAway(ctx, v.caller, want{action: actSign}, refuse(ruleHolder, "the certificate of the token is for %q, the token asks for %.80q", who, c.Subject))
	}
	return nil
}

// ours returns the entry of a certificate that this authority issued, nil for
// another's. One that ends at a root of ours and is not in the record is forged.
func (a *Authority) ours(ctx context.Context, st *state, cert *x509.Certificate) (*store.Certificate, error) {
	entry, err := a.recorded(ctx, cert)
	var s *stranger
	switch {
	case err == nil:
		return &entry, nil
	case !errors.As(err, &s):
		return nil, err
	}
	for _, i := range slices.Concat(st.intermediates, st.roots) {
		if cert.CheckSignatureFrom(i) == nil {
			return nil, err
		}
	}
	return nil, nil
}

// holds refuses names that the certificate of the token does not have.
func (c *claims) holds(asked []string) error {
	if c.holder == nil {
		return nil
	}
	own, err := names.CanonicalAll(pemfile.Names(c.holder))
	if err != nil {
		return refuse(ruleHolder, "the certificate of the token has a name that is not one: %v", err)
	}
	for _, n := range asked {
		if !slices.Contains(own, n) {
			return refuse(ruleHolder, "%q is not a name of the certificate that signed the token", n)
		}
	}
	return nil
}

// itself authenticates a revocation by a token of type X5C: the holder may
// revoke its own certificate, if it is one of ours.
func (a *Authority) itself(ctx context.Context, c *claims) (caller, error) {
	entry, err := a.recorded(ctx, c.holder)
	if err != nil {
		return caller{}, err
	}
	out := peer(entry)
	out.kind, out.name = byHolder, "x5c "+c.Issuer+"/"+entry.Service+"/"+entry.Serial
	if serial, err := store.ParseSerial(c.Subject); err != nil || serial != entry.Serial {
		return out, a.turnAway(ctx, out, want{action: actRevoke}, refuse(ruleSelf, "%s may revoke certificate %s only", out.name, pemfile.HexSerial(entry.Serial)))
	}
	return out, nil
}
