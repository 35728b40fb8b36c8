package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"

	"github.com/smallstep/certificates/authority/provisioner"

	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// A token of type X5C is signed with the key of a certificate that it brings
// along. What it can ask for is less than that certificate has: names of its
// own, until its own end. One of ours stays in its lineage, so that revoking it
// ends what came of it.

// holder is the certificate of a token. It chains to the roots of the provisioner,
// and its key may sign. Its signature on the token is the provisioner's to check.
func (p x5c) holder(head joseHeader) (*x509.Certificate, error) {
	chain, err := head.certificates("x5c", maxTokenChain)
	if err != nil {
		return nil, err
	}
	leaf := chain[0]
	if !descends(chain, p.roots) {
		return nil, errors.New("its certificate does not chain to a root of its provisioner")
	}
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots: pool(p.roots), Intermediates: pool(chain[1:]), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil { // dates, usages, constraints of names
		return nil, errors.New("its certificate does not verify")
	}
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return nil, errors.New("its certificate is not for signatures")
	}
	return leaf, nil
}

// descends reports whether the signatures of a chain, leaf first, lead down from one
// of the roots. It begins at the root, so that each signature is checked with a key
// that is trusted by then: a stranger's chain of costly keys ends at the first check.
// crypto/x509 begins at the leaf, and checks a hundred signatures if it must.
func descends(chain, roots []*x509.Certificate) bool {
	trusted := slices.Clone(roots)
	for _, c := range slices.Backward(chain) {
		signs := func(parent *x509.Certificate) bool {
			return c.Equal(parent) || pemfile.Issued(parent, c)
		}
		if !slices.ContainsFunc(trusted, signs) {
			return false
		}
		trusted = append(trusted, c)
	}
	return true
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
	serial := c.holder.SerialNumber.String()
	v.caller = caller{
		kind: byHolder, name: "x5c " + c.Issuer + "/" + c.holder.Subject.CommonName + "/" + serial, serial: serial,
		credentials: byCertificate(c.holder),
	}
	v.proof = proofEnd{c.holder.NotAfter, "the certificate of the token", "sign a token with a newer one"}
	v.provisioner = provisioner.Extension{Type: provisioner.TypeX5C, Name: c.Issuer}
	entry, err := a.ours(ctx, st, c.holder)
	if err != nil {
		return err
	}
	who := c.holder.Subject.CommonName
	if entry != nil {
		v.previous, who = entry, entry.Service
		v.caller.service, v.caller.credentials = entry.Service, byLineage(*entry)
	}
	if err := a.validateKey(c.holder.PublicKey); err != nil { // the key is known to others: anybody can have signed
		return a.turnAway(ctx, v.caller, want{action: actSign}, refuse(ruleSound, "the key of the certificate of the token: %v", err))
	}
	// The subject becomes the service: one name that two services share must not
	// lead from the one to the other.
	if c.Subject != who && (entry != nil || !slices.Contains(pemfile.Names(c.holder), c.Subject)) {
		return a.turnAway(ctx, v.caller, want{action: actSign}, refuse(ruleHolder, "the certificate of the token is for %q, the token asks for %.80q", who, c.Subject))
	}
	v.caller.service = c.Subject
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
