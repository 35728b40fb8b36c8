package ca

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/smallstep/certificates/authority/provisioner"
	"go.step.sm/crypto/x509util"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/ca/internal/pkcs10"
	"github.com/artstore/artstore-pki/ca/internal/validity"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// Issuing is a chain of types: verifiedRequest → prepared → signed → committed. Each
// step takes what only the step before returns, so the wrong order does not
// compile. The crash story: up to the commit nothing has left and nothing is
// stored, so a crash loses a signature that no client has; after it the certificate
// is in the record, and a client that missed the answer asks again with the same
// token and key.

// prepared is a certificate that may be issued, unsigned.
type prepared struct {
	v        verifiedRequest
	template *x509.Certificate

	maxLive, maxLineage int // to be checked by the commit
}

// signed exists in memory only: it must not leave before it is committed.
type signed struct {
	prepared
	chain []*x509.Certificate
}

// committed is in the record and may be handed out.
type committed struct {
	leaf    *x509.Certificate
	chain   []*x509.Certificate // intermediates, issuer first
	earlier bool                // it was handed out before, for the same token and key
}

// issue runs the chain against one state.
func (a *Authority) issue(ctx context.Context, st *state, v verifiedRequest) (committed, error) {
	start := time.Now()
	p, err := a.prepare(ctx, st, v)
	if err != nil {
		return committed{}, err
	}
	s, err := sign(st, p)
	if err != nil {
		return committed{}, err
	}
	done, err := a.commit(ctx, s)
	if err != nil {
		return committed{}, err
	}
	if done.earlier { // the token was spent on it before; the signature made now is dropped
		return done, nil
	}
	a.metrics.issued.WithLabelValues(kindOf(v)).Inc()
	a.writeAudit(ctx, v.caller, auditLine{Action: string(v.action), Outcome: outcomeDone, Serial: done.leaf.SerialNumber.String()})
	a.metrics.latency.Observe(time.Since(start).Seconds())
	a.logger.InfoContext(ctx, "certificate issued", "service", v.caller.service, "serial", certs.Serial(done.leaf), "not_after", done.leaf.NotAfter, "caller", v.caller.name)
	a.sweep(ctx)
	return done, nil
}

// returnEarlier returns the certificate that the same token and key got before: the
// client may have lost the answer. It refuses if that certificate has expired, because
// a token is good for one certificate only.
func (a *Authority) returnEarlier(ctx context.Context, v verifiedRequest, entry record.Certificate) (committed, error) {
	if v.singleUse { // its holder makes another one at will
		return committed{}, a.recordDenial(ctx, v.caller, accessRequest{action: v.action}, denial.New(denial.Token, "the renewal token was already used"))
	}
	if !time.Now().Before(entry.NotAfter) {
		return committed{}, a.recordDenial(ctx, v.caller, accessRequest{action: v.action}, denial.New(denial.Token, "the token was already used, for a certificate that has expired"))
	}
	done, err := committedFrom(entry)
	if err == nil {
		a.writeAudit(ctx, v.caller, auditLine{Action: string(v.action), Outcome: outcomeAgain, Serial: entry.Serial})
	}
	done.earlier = true
	return done, err
}

// prepare authorizes the request and builds the certificate from the profile. The
// request gives the public key, and dates if it asks for any.
func (a *Authority) prepare(ctx context.Context, st *state, v verifiedRequest) (prepared, error) {
	w := accessRequest{action: v.action, names: v.names, key: v.key, previous: v.previous}
	if err := a.authorize(ctx, st, v.caller, w); err != nil {
		return prepared{}, err
	}
	p, err := st.serviceFor(v.caller)
	if err != nil {
		return prepared{}, err
	}
	t, err := leafTemplate(v, p)
	if err != nil {
		return prepared{}, err
	}
	if at := st.config.CRLURL; at != "" {
		t.CRLDistributionPoints = []string{at + "?issuer=" + cacert.KeyID(st.intermediates[0])}
	}
	if v.proof, err = a.proofEndFor(ctx, p, v); err != nil {
		return prepared{}, err
	}
	got, err := v.validity(p, st.intermediates[0])
	if err != nil {
		return prepared{}, a.recordDenial(ctx, v.caller, w, err)
	}
	t.NotBefore, t.NotAfter = got.NotBefore, got.NotAfter
	if v.action == actSign && v.provisioner.Type == provisioner.TypeACME {
		v.proof.End = p.NamesUntil(time.Now(), got.NotAfter)
	}
	out := prepared{v: v, template: t, maxLineage: p.MaxLineage}
	if v.previous != nil && a.full.pauses(v.previous.Lineage, time.Now()) {
		return prepared{}, a.recordDenial(ctx, v.caller, w, refuseLineage(v, p.MaxLineage))
	}
	if v.action == actSign && v.caller.kind != callerAuthority { // an authority that restarts often must still start
		out.maxLive, err = a.liveLimit(ctx, p, time.Now())
	}
	return out, err
}

// validity decides the dates of a certificate: by the moment and what was asked,
// or those of a fixture.
func (v verifiedRequest) validity(p *policy.Service, issuing *x509.Certificate) (validity.Dates, error) {
	now := time.Now()
	if v.fixtureTime.IsZero() {
		return validity.Decide(p, v.requestedDates, validity.Bounds{Now: now, Issuing: issuing, Proof: v.proof})
	}
	d, err := validity.Decide(p, validity.Dates{}, validity.Bounds{Now: v.fixtureTime, Issuing: issuing})
	switch {
	case err != nil:
		return d, err
	case !d.NotBefore.Before(d.NotAfter):
		return d, denial.New(denial.Issuer, "the issuing certificate begins at %s", validity.Stamp(issuing.NotBefore))
	case now.After(d.NotBefore) && now.Before(d.NotAfter):
		return d, denial.New(denial.Lifetime, "a fixture must not be valid now, and this one would be until %s", validity.Stamp(d.NotAfter))
	}
	return d, nil
}

func leafTemplate(v verifiedRequest, p *policy.Service) (*x509.Certificate, error) {
	serial, err := cacert.NewSerial()
	if err != nil {
		return nil, err
	}
	id, err := x509util.GenerateSubjectKeyID(v.key)
	if err != nil {
		return nil, fmt.Errorf("naming a key: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               subjectName(v),
		KeyUsage:              x509.KeyUsageDigitalSignature, // all that TLS 1.3 needs (RFC 8446 §4.4.2.2), RSA keys included
		ExtKeyUsage:           p.Usages,
		BasicConstraintsValid: true,
		SubjectKeyId:          id,
	}
	if v.caller.kind == callerAuthority { // by which clients know the authority; no profile can obtain it
		t.UnknownExtKeyUsage = []asn1.ObjectIdentifier{stepapi.AuthorityPurpose}
	}
	if v.provisioner.Name != "" { // the authority itself has none
		ext, err := v.provisioner.ToExtension()
		if err != nil {
			return nil, fmt.Errorf("encoding the provisioner: %w", err)
		}
		t.ExtraExtensions = append(t.ExtraExtensions, ext) // step reads it to renew and revoke
	}
	return t, names.Set(t, v.names)
}

// subjectName returns the service as the common name. ACME clients take the common name for one more name to
// prove when they renew (certbot and lego do), so in their certificates it stands
// only if it is one; the record knows the service either way.
func subjectName(v verifiedRequest) pkix.Name {
	if v.provisioner.Type == provisioner.TypeACME && !slices.Contains(v.names, v.caller.service) {
		return pkix.Name{}
	}
	return pkix.Name{CommonName: v.caller.service}
}

func sign(st *state, p prepared) (signed, error) {
	issuing := st.intermediates[0]
	der, err := x509.CreateCertificate(rand.Reader, p.template, issuing, p.v.key, st.signer)
	if err != nil {
		return signed{}, fmt.Errorf("signing for %s: %w", p.v.caller.service, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return signed{}, fmt.Errorf("signing for %s: %w", p.v.caller.service, err)
	}
	return signed{p, []*x509.Certificate{leaf, issuing}}, nil
}

// commit makes {token spent, certificate, event} true at once and returns what
// may leave, which is an earlier certificate if the token was spent meanwhile.
func (a *Authority) commit(ctx context.Context, s signed) (committed, error) {
	c := record.NewCertificate(s.chain, time.Now())
	c.Service, c.Kind, c.Provisioner, c.Caller = s.v.caller.service, kindOf(s.v), s.v.provisioner.Name, s.v.caller.name
	c.ProofUntil = s.v.proof.End
	if s.v.previous != nil {
		c.Lineage, c.Previous = s.v.previous.Lineage, s.v.previous.Serial
	}
	entry, err := a.record.Commit(ctx, store.Issuance{
		Certificate: c, Token: s.v.token, TrustDigest: s.v.reportedTrust, Order: s.v.order, MaxLive: s.maxLive, MaxLineage: s.maxLineage,
	})
	if err != nil {
		return committed{}, a.denialFor(ctx, s.prepared, err)
	}
	if entry.Serial != c.Serial {
		return a.returnEarlier(ctx, s.v, entry)
	}
	return committed{leaf: s.chain[0], chain: s.chain[1:]}, nil
}

// denialFor turns an error of the commit into a refusal for the caller.
func (a *Authority) denialFor(ctx context.Context, p prepared, err error) error {
	v := p.v
	switch {
	case errors.Is(err, store.ErrTokenUsed):
		err = denial.New(denial.Token, "the token was already used for another key")
	case errors.Is(err, store.ErrRevoked):
		err = denial.New(denial.Revoked, "the certificate of this token or lineage was revoked")
	case errors.Is(err, store.ErrTooMany):
		err = denial.New(denial.LiveOfService, "service %s has as many live certificates as it may (profiles.%s.max_live)", v.caller.service, v.caller.service)
	case errors.Is(err, store.ErrLineageFull):
		err = a.lineageFull(ctx, v, p.maxLineage)
	default:
		return err
	}
	return a.recordDenial(ctx, v.caller, accessRequest{action: v.action}, err)
}

func kindOf(v verifiedRequest) string {
	switch {
	case v.caller.kind == callerAuthority:
		return kinds.SelfIssued
	case v.action == actRenew:
		return kinds.Renewed
	case v.action == actRekey:
		return kinds.Rekeyed
	}
	return kinds.Issued
}

func committedFrom(entry record.Certificate) (committed, error) {
	leaf, err := x509.ParseCertificate(entry.DER)
	if err != nil {
		return committed{}, fmt.Errorf("reading certificate %s: %w", entry.Serial, err)
	}
	chain, err := x509.ParseCertificates(entry.Chain)
	if err != nil {
		return committed{}, fmt.Errorf("reading the chain of %s: %w", entry.Serial, err)
	}
	return committed{leaf: leaf, chain: chain}, nil
}

// sweepEvery is the shortest time between two sweeps.
const sweepEvery = 10 * time.Minute

// sweep deletes the spent tokens that have expired. It is called after a certificate was
// issued, because an authority without requests has nothing to sweep.
func (a *Authority) sweep(ctx context.Context) {
	now := time.Now()
	if !a.swept.Due(now, sweepEvery) {
		return
	}
	if err := a.record.SweepTokens(context.WithoutCancel(ctx), now); err != nil {
		a.logger.WarnContext(ctx, "spent tokens not swept", "err", err)
	}
}

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
func (a *Authority) verifyOperator(ctx context.Context, service string, csr *x509.CertificateRequest) (v verifiedRequest, err error) {
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
