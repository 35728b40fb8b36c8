package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/smallstep/certificates/authority/provisioner"

	"github.com/artstore/artstore-pki/ca/internal/acmesrv"
	"github.com/artstore/artstore-pki/ca/internal/ari"
	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/validity"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/certs"
)

// acmeAuthority is what the ACME server of one state may ask of the authority. It makes a
// verifiedRequest of an order that is ready (RFC 8555 §7.4), which is issued like any
// other.
type acmeAuthority struct {
	a  *Authority
	st *state
}

// newACME makes the ACME server of a state. Its counts of new accounts are those of the
// server before.
func (a *Authority) newACME(st *state) *acmesrv.Server {
	var former *acmesrv.Server
	if old := a.state.Load(); old != nil {
		former = old.acme
	}
	return acmesrv.New(acmesrv.Config{
		Rules: st.rules, Host: st.config.PublicHost(), Record: a.acmeRecord, Authority: acmeAuthority{a, st}, Logger: a.logger,
	}, former)
}

func (b acmeAuthority) CheckDates(p *policy.Service, notBefore, notAfter time.Time) error {
	_, err := validity.Decide(p, validity.Dates{NotBefore: notBefore, NotAfter: notAfter}, validity.Bounds{Now: time.Now(), Issuing: b.st.intermediates[0]})
	return err
}

// Issue issues for the service that has the names of the order. An account has proved
// nothing but names, so its denials are counted by the service.
func (b acmeAuthority) Issue(ctx context.Context, req acmesrv.Request) error {
	o := req.Order
	_, err := b.a.issue(ctx, b.st, verifiedRequest{
		caller:         caller{kind: callerAccount, name: "acme " + o.AccountID, service: req.Service, credentials: []credential{{"service " + req.Service, refusalsPerHour}}},
		action:         actSign,
		names:          req.Names,
		key:            req.CSR.PublicKey,
		keyHash:        certs.KeyHash(req.CSR.RawSubjectPublicKeyInfo),
		provisioner:    provisioner.Extension{Type: provisioner.TypeACME, Name: b.st.rules.ACME.Name},
		order:          o.ID,
		requestedDates: validity.Dates{NotBefore: o.NotBefore, NotAfter: o.NotAfter},
		// An order is spent like a token: a second request with the same key gets the same certificate.
		token: store.Token{Hash: sha256.Sum256([]byte("acme order\x00" + o.ID)), Expires: o.ExpiresAt.Add(2 * tokenLeeway)},
	})
	return err
}

func (b acmeAuthority) RenewalInfo(ctx context.Context, id ari.ID) (ari.Info, error) {
	return b.a.renewalInfo(ctx, id)
}

func (b acmeAuthority) Recorded(ctx context.Context, cert *x509.Certificate) (record.Certificate, error) {
	return b.a.lookUp(ctx, cert)
}

func (b acmeAuthority) Revoke(ctx context.Context, req acmesrv.Revocation) error {
	c := callerOf(req.Entry)
	if req.Account != "" {
		c.kind, c.name = callerAccount, "acme "+req.Account
	}
	return b.a.revoke(ctx, c, store.RevokeRequest{
		Revocation: record.Revocation{Serial: req.Entry.Serial, RevokedAt: time.Now(), Reason: req.Reason, Caller: c.name},
	})
}

func (b acmeAuthority) CountDenial(err error) {
	if denied, ok := errors.AsType[*denial.Error](err); ok {
		b.a.metrics.refused.WithLabelValues(string(denied.Rule)).Inc()
	}
}

func (b acmeAuthority) Charge(r *http.Request) { b.a.charge(r) }

func (b acmeAuthority) Life() context.Context { return b.a.life }

// proofEndFor returns when the proof ends by which a certificate is issued. For a first
// certificate the function that has authenticated it knows the end. A renewal inherits
// it, because it proves nothing but the possession of the key.
func (a *Authority) proofEndFor(ctx context.Context, p *policy.Service, v verifiedRequest) (validity.Proof, error) {
	if v.action == actSign {
		return v.proof, nil
	}
	out := validity.Proof{End: v.previous.ProofUntil, What: "the certificate that vouched for this lineage", Remedy: "sign a token with a newer one"}
	switch v.provisioner.Type {
	case provisioner.TypeACME:
		out.What, out.Remedy = "the proof of the names", "prove the names again, with an order"
		if out.End.IsZero() { // an older version has issued it, and kept no end
			first, err := a.firstOf(ctx, *v.previous)
			if err != nil {
				return out, err
			}
			out.End = p.NamesUntil(first.IssuedAt, first.NotAfter)
		}
	case provisioner.TypeX5C:
		if out.End.IsZero() { // likewise; the certificate behind the token is not known any more, so the end is that of this one
			out.End = v.previous.NotAfter
		}
	}
	return out, nil
}

// firstOf returns the first certificate of the lineage of entry.
func (a *Authority) firstOf(ctx context.Context, entry record.Certificate) (record.Certificate, error) {
	if entry.Serial == entry.Lineage {
		return entry, nil
	}
	first, err := a.record.Get(ctx, entry.Lineage)
	if err != nil {
		return first, fmt.Errorf("reading the first certificate of a lineage: %w", err)
	}
	return first, nil
}
