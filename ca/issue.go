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

	"github.com/artstore/artstore-pki/ca/internal/auditlog"
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

// Issuing is a chain of types: verifiedRequest → prepared → signed → committed. Each step
// takes a value that only the step before returns, so another order does not compile.
//
// A crash before the commit loses a signature that no client has, and nothing is stored.
// After the commit the certificate is in the record, and a client that has missed the
// answer asks again with the same token and key.
// docs/design/0002-issuing-pipeline.md

// prepared is a certificate that may be issued and is not signed yet.
type prepared struct {
	v        verifiedRequest
	template *x509.Certificate
	issuer   cacert.Issuer
	version  int64 // of the trust, by which issuer was chosen

	maxLive, maxLineage int // limits for the commit to check; 0 is no check
}

// signed is a certificate in memory. It must not be sent before it is committed.
type signed struct {
	prepared
	chain []*x509.Certificate
}

// committed is a certificate in the record, which may be sent.
type committed struct {
	leaf    *x509.Certificate
	chain   []*x509.Certificate // intermediates, issuer first
	earlier bool                // an earlier request with the same token and key got it
}

// issue runs all steps. Errors are [denial.Error] for what is not
// allowed, and those of key and record.
//
// A certificate that was signed under a version of the trust that is over is not committed.
// Then this process follows the record and signs again, so the caller sees no failure.
func (a *Authority) issue(ctx context.Context, st *state, v verifiedRequest) (done committed, err error) {
	for range 3 {
		if done, err = a.issueUnder(ctx, st, v); !errors.Is(err, store.ErrTrustChanged) {
			return done, err
		}
		if err := a.followTrust(ctx); err != nil {
			return committed{}, err
		}
		st = a.state.Load()
	}
	return done, err
}

// issueUnder is issue against one state.
func (a *Authority) issueUnder(ctx context.Context, st *state, v verifiedRequest) (committed, error) {
	start := time.Now()
	p, err := a.prepare(ctx, st, v)
	if err != nil {
		return committed{}, err
	}
	s, err := sign(p)
	if err != nil {
		return committed{}, err
	}
	done, err := a.commit(ctx, s)
	if err != nil {
		return committed{}, err
	}
	if done.earlier { // the certificate that was signed now is dropped
		return done, nil
	}
	a.metrics.issued.WithLabelValues(kindOf(v)).Inc()
	a.writeAudit(ctx, v.caller, auditlog.Line{Action: string(v.action), Outcome: auditlog.Done, Serial: done.leaf.SerialNumber.String()})
	a.metrics.latency.Observe(time.Since(start).Seconds())
	a.logger.InfoContext(ctx, "certificate issued", "service", v.caller.service, "serial", certs.Serial(done.leaf), "not_after", done.leaf.NotAfter, "caller", v.caller.name)
	a.sweep(ctx)
	return done, nil
}

// returnEarlier returns the certificate that an earlier request with the same token and
// key got, because that answer may have been lost. If the certificate has expired, or its
// issuer is revoked, it refuses, since a token is for one certificate only.
func (a *Authority) returnEarlier(ctx context.Context, v verifiedRequest, entry record.Certificate) (committed, error) {
	if v.singleUse { // the client makes such a token by itself, so it can make another one
		return committed{}, a.recordDenial(ctx, v.caller, accessRequest{action: v.action}, denial.New(denial.Token, "the renewal token was already used"))
	}
	if !time.Now().Before(entry.NotAfter) {
		return committed{}, a.recordDenial(ctx, v.caller, accessRequest{action: v.action}, denial.New(denial.Token, "the token was already used, for a certificate that has expired"))
	}
	done, err := committedFrom(entry)
	if err == nil && len(done.chain) > 0 && !a.state.Load().rootLists.RevokedAt(done.chain[0]).IsZero() {
		return committed{}, a.recordDenial(ctx, v.caller, accessRequest{action: v.action},
			denial.New(denial.IssuerRevoked, "the token was already used, for a certificate whose issuer is revoked since"))
	}
	if err == nil {
		a.writeAudit(ctx, v.caller, auditlog.Line{Action: string(v.action), Outcome: auditlog.Again, Serial: entry.Serial})
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
	issuer := st.issuerFor(v.caller.service)
	if at := st.config.CRLURL; at != "" {
		t.CRLDistributionPoints = []string{at + "?issuer=" + cacert.KeyID(issuer.Cert)}
	}
	if v.proof, err = a.proofEndFor(ctx, p, v); err != nil {
		return prepared{}, err
	}
	got, err := v.validity(p, issuer.Cert)
	if err != nil {
		return prepared{}, a.recordDenial(ctx, v.caller, w, err)
	}
	t.NotBefore, t.NotAfter = got.NotBefore, got.NotAfter
	if v.action == actSign && v.provisioner.Type == provisioner.TypeACME {
		v.proof.End = p.NamesUntil(time.Now(), got.NotAfter)
	}
	out := prepared{v: v, template: t, issuer: issuer, version: st.trust.Version, maxLineage: p.MaxLineage}
	if v.previous != nil && a.full.Pauses(v.previous.Lineage, time.Now()) {
		return prepared{}, a.recordDenial(ctx, v.caller, w, refuseLineage(v, p.MaxLineage))
	}
	if v.action == actSign && v.caller.kind != callerAuthority { // each start issues to the authority itself, and must not fail by a limit
		out.maxLive, err = a.liveLimit(ctx, p, time.Now())
	}
	return out, err
}

// validity decides the dates of the certificate: by the profile, the requested dates and
// the clock, or those of a fixture.
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

// subjectName returns a subject with the service as the common name. ACME clients such as
// certbot and lego order the common name as one more name when they renew. Their
// certificates therefore have the common name only if it is one of the names; the record
// has the service in any case.
func subjectName(v verifiedRequest) pkix.Name {
	if v.provisioner.Type == provisioner.TypeACME && !slices.Contains(v.names, v.caller.service) {
		return pkix.Name{}
	}
	return pkix.Name{CommonName: v.caller.service}
}

func sign(p prepared) (signed, error) {
	der, err := x509.CreateCertificate(rand.Reader, p.template, p.issuer.Cert, p.v.key, p.issuer.Key)
	if err != nil {
		return signed{}, fmt.Errorf("signing for %s: %w", p.v.caller.service, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return signed{}, fmt.Errorf("signing for %s: %w", p.v.caller.service, err)
	}
	return signed{p, []*x509.Certificate{leaf, p.issuer.Cert}}, nil
}

// commit spends the token and records certificate and event in one transaction, and
// returns the certificate to send: an earlier one if the token was spent before on the
// same key.
func (a *Authority) commit(ctx context.Context, s signed) (committed, error) {
	c := record.NewCertificate(s.chain, time.Now())
	c.Service, c.Kind, c.Provisioner, c.Caller = s.v.caller.service, kindOf(s.v), s.v.provisioner.Name, s.v.caller.name
	c.ProofUntil = s.v.proof.End
	if s.v.previous != nil {
		c.Lineage, c.Previous = s.v.previous.Lineage, s.v.previous.Serial
	}
	entry, err := a.record.Commit(ctx, store.Issuance{
		Certificate: c, Token: s.v.token, Report: reportedUntilRenewal(s.v.report, c), TrustVersion: s.version, Order: s.v.order, MaxLive: s.maxLive, MaxLineage: s.maxLineage,
	})
	if err != nil {
		return committed{}, a.denialFor(ctx, s.prepared, err)
	}
	if entry.Serial != c.Serial {
		return a.returnEarlier(ctx, s.v, entry)
	}
	return committed{leaf: s.chain[0], chain: s.chain[1:]}, nil
}

// denialFor returns the denial that an error of the commit means for the caller, or the
// error itself.
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

// A lineage is a first certificate with its renewals and the certificates for which it
// signed tokens. A thief of one key can get more certificates, so two limits hold until
// somebody revokes the lineage: how many of its certificates are valid at a time, and
// when the proof ends by which the first one was issued.
// docs/design/0019-bounded-lineages.md
// Package ca/internal/livelimit remembers what the record has said about the first limit;
// proofEndFor has the second.

// lineageFull returns the denial of one more certificate of a lineage, and logs it once in
// a while. The certificates of the lineage stay valid until they expire.
func (a *Authority) lineageFull(ctx context.Context, v verifiedRequest, most int) error {
	lineage := certs.HexSerial(v.previous.Lineage)
	if a.full.Refused(v.previous.Lineage, time.Now()) {
		a.logger.ErrorContext(ctx, "a lineage has as many live certificates as it may: something renews in a loop, or the key was stolen",
			"service", v.caller.service, "lineage", lineage, "live", most)
	}
	return refuseLineage(v, most)
}

func refuseLineage(v verifiedRequest, most int) error {
	return denial.New(denial.LiveOfLineage, "lineage %s has %d or more live certificates (profiles.%s.max_live_per_lineage): wait until one expires, or enrol anew",
		certs.HexSerial(v.previous.Lineage), most, v.caller.service)
}

// liveExact is the largest limit for which each first certificate counts the live
// ones, which is a scan of one range of an index.
const liveExact = 1000

// liveLimit returns the limit that the commit must enforce, or 0 to skip the check: while
// the last count plus the certificates issued here since are below half of the limit.
// Two replicas therefore keep the limit. N replicas can exceed it by (N−2)/2 × limit
// until the next count, which is at most livelimit.Recount away.
func (a *Authority) liveLimit(ctx context.Context, p *policy.Service, now time.Time) (int, error) {
	if p.MaxLive <= liveExact {
		return p.MaxLive, nil
	}
	if n, ok := a.live.Next(p.Name, now); ok && n < p.MaxLive/2 {
		return 0, nil
	}
	n, err := a.record.Live(ctx, p.Name, now, p.MaxLive)
	if err != nil {
		return 0, err
	}
	a.live.Set(p.Name, now, n)
	if n < p.MaxLive/2 {
		return 0, nil
	}
	return p.MaxLive, nil
}

// IssueFixture issues a certificate that is expired or not yet valid, for tests of the
// services: no service ever gets one. It signs csr as if it had been asked at the moment
// at. Everything else is as always: the profile allows the names and the key type and
// decides the lifetime, and the certificate is in the record. A moment that would make
// the certificate valid now is refused. The chain is returned leaf first.
//
// It is for the operator, who has the state directory and with it the key that can sign
// anything. No handler leads here.
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

// verifyOperator checks the certificate request like that of a client. The operator needs
// no credential, because the operator has opened the state directory.
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
