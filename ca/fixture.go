package ca

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/ca/store"
)

// IssueFixture issues what tests need and no service ever gets: a certificate
// that is not valid now. It signs csr as if it had been asked at another moment;
// all else is as always: the names and the key type are the profile's to allow,
// the life is the profile's, and the certificate is in the record. Dates that
// would make it valid now are refused.
//
// It is for the operator, who holds the state directory and with it the key that
// could sign anything; no handler leads here. The chain is leaf first.
func (a *Authority) IssueFixture(ctx context.Context, service string, csr *x509.CertificateRequest, at time.Time) ([]*x509.Certificate, error) {
	v, err := a.verifyOperator(ctx, service, csr)
	if err != nil {
		return nil, err
	}
	v.at = at
	done, err := a.issue(ctx, a.state.Load(), v)
	if err != nil {
		return nil, err
	}
	return append([]*x509.Certificate{done.leaf}, done.chain...), nil
}

// verifyOperator checks the request as that of a stranger would be; who asks
// needs no proof, having opened the state directory.
func (a *Authority) verifyOperator(ctx context.Context, service string, csr *x509.CertificateRequest) (v verified, err error) {
	v.caller, v.action = caller{kind: byOperator, name: operator, service: service}, actSign
	if err := checkRequest(csr); err != nil {
		return v, fmt.Errorf("checking the request: %w", err)
	}
	if v.names, err = names.OfRequest(csr); err != nil {
		return v, a.turnAway(ctx, v.caller, want{action: actSign}, refuse(ruleNames, "%v", err))
	}
	v.key, v.keyHash = csr.PublicKey, store.KeyHash(csr.RawSubjectPublicKeyInfo)
	return v, nil
}

// validity decides the dates of a certificate: by the moment and what was asked,
// or those of a fixture.
func (v verified) validity(p *profile, issuing *x509.Certificate) (dates, error) {
	now := time.Now()
	if v.at.IsZero() {
		return p.validity(v.asked, bounds{now, issuing, v.proof})
	}
	d, err := p.validity(dates{}, bounds{now: v.at, issuing: issuing})
	switch {
	case err != nil:
		return d, err
	case !d.notBefore.Before(d.notAfter):
		return d, refuse(ruleIssuer, "the issuing certificate begins at %s", stamp(issuing.NotBefore))
	case now.After(d.notBefore) && now.Before(d.notAfter):
		return d, refuse(ruleLifetime, "a fixture must not be valid now, and this one would be until %s", stamp(d.notAfter))
	}
	return d, nil
}
