package ca

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/ca/internal/pkcs10"
	"github.com/artstore/artstore-pki/internal/certs"
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
	v.fixtureTime = at
	done, err := a.issue(ctx, a.state.Load(), v)
	if err != nil {
		return nil, err
	}
	return append([]*x509.Certificate{done.leaf}, done.chain...), nil
}

// verifyOperator checks the request as that of any client. The operator needs no
// credential: it has opened the state directory.
func (a *Authority) verifyOperator(ctx context.Context, service string, csr *x509.CertificateRequest) (v VerifiedRequest, err error) {
	v.caller, v.action = caller{kind: callerOperator, name: operator, service: service}, actSign
	if err := pkcs10.Check(csr); err != nil {
		return v, fmt.Errorf("checking the request: %w", err)
	}
	if v.names, err = names.OfRequest(csr); err != nil {
		return v, a.recordDenial(ctx, v.caller, accessRequest{action: actSign}, denial.New(denial.Names, "%v", err))
	}
	v.key, v.keyHash = csr.PublicKey, certs.KeyHash(csr.RawSubjectPublicKeyInfo)
	return v, nil
}
