package ca

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/auditlog"
	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/lru"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pubkey"
)

// caller is the authenticated sender of a request. Only the verify functions make
// one, each from a credential that was checked.
type caller struct {
	kind    callerKind
	name    string // for the record
	service string // for which it may ask, empty until that is proven
	serial  string // of the certificate that a peer has shown, or that a revocation token names

	credentials []credential // verified ones, the narrowest first
}

// credential is a key by which refusals are counted. It was verified, so no caller can
// use up the count of another. A name in a request is no such key, because the sender
// chooses it freely.
type credential struct {
	id   string
	most int // how many refusals are recorded in an hour
}

const (
	refusalsPerHour  = 100
	refusalsPerToken = 10     // one token must not use up the count of its provisioner
	maxCredentials   = 10_000 // remembered at once
)

// lineageCredentials counts the holder of a certificate by its lineage, so that a
// renewal does not start a new count.
func lineageCredentials(e record.Certificate) []credential {
	return []credential{{"lineage " + e.Lineage, refusalsPerHour}}
}

// certificateCredentials counts the holder of a certificate that this authority has not
// issued, so that has no lineage.
func certificateCredentials(c *x509.Certificate) []credential {
	return []credential{{"certificate " + certs.Fingerprint(c), refusalsPerHour}}
}

// tokenCredentials counts a token that an enrolment key signed by the token and by the
// key. That key can name any service, so the service in the token is no part of it.
func tokenCredentials(c *claims, token store.Token) []credential {
	return []credential{
		{"token " + hex.EncodeToString(token.Hash[:]), refusalsPerToken},
		{"provisioner " + c.provisioner(), refusalsPerHour},
	}
}

// counted returns the credentials by which refusals of c are counted. Callers on this
// machine have none, and are counted by their name.
func (c caller) counted() []credential {
	if len(c.credentials) == 0 {
		return []credential{{"caller " + c.name, refusalsPerHour}}
	}
	return c.credentials
}

type callerKind int

const (
	callerToken callerKind = iota + 1
	callerCertificate
	callerAuthority
	callerOperator // has the state directory
	callerX5C      // signed a token with the key of its certificate
	callerAccount  // has an ACME account, and proved the names
)

type action string

const (
	actSign   action = "sign"
	actRenew  action = "renew"
	actRekey  action = "rekey"
	actRevoke action = "revoke"
	actRead   action = "read the record"
	actToken  action = "make a token"
	actTrust  action = "change the trust"
	actOrder  action = "order a renewal"
	actWatch  action = "watch"

	// actAuthenticate is for denials before the request is known.
	actAuthenticate action = "authenticate"
)

// accessRequest is what a caller asks for.
type accessRequest struct {
	action   action
	names    []string
	key      crypto.PublicKey
	previous *record.Certificate // to renew
	lineage  string              // of the certificate to read or to make a token with
	service  string              // to make a token for
	serial   string              // of the certificate to revoke, decimal
}

// authorize decides whether the caller may do what it asks for: issue, revoke, read the
// record, make a token, wait for changes, change the trust or order renewals. A [denial.Error] is recorded before it is returned. Every
// route to one of these actions leads through here.
func (a *Authority) authorize(ctx context.Context, st *state, c caller, w accessRequest) error {
	err := a.evaluate(ctx, st, c, w)
	if err == nil {
		return nil
	}
	return a.recordDenial(ctx, c, w, err)
}

// evaluate is authorize without the record of a refusal.
func (a *Authority) evaluate(ctx context.Context, st *state, c caller, w accessRequest) error {
	if w.action == actRevoke {
		if c.kind != callerOperator && c.serial != w.serial {
			return denial.New(denial.Self, "%s may revoke certificate %s only", c.name, certs.HexSerial(c.serial))
		}
		return nil
	}
	operates := w.action == actTrust || w.action == actOrder
	if w.action == actRead && !slices.Contains(st.config.Auditors, c.service) {
		return denial.New(denial.Auditor, "service %.80q is not an auditor (pki.yaml, auditors)", c.service)
	}
	if operates && !slices.Contains(st.config.Operators, c.service) {
		return denial.New(denial.Operator, "service %.80q is not an operator (pki.yaml, operators)", c.service)
	}
	if w.action == actToken {
		return a.evaluateToken(ctx, st, c, w)
	}
	p, err := st.serviceFor(c)
	if err != nil {
		return err
	}
	// The commit checks the rest of the lineage in its transaction. A query here would be
	// one more, and a revocation could still come between it and the commit.
	if w.previous != nil && w.previous.Revocation != nil {
		return denial.New(denial.Revoked, "certificate %s was revoked", certs.HexSerial(c.serial))
	}
	if w.action == actRead || w.action == actWatch || operates { // no commit follows that could check the lineage
		return a.notRevoked(ctx, c, w.lineage)
	}
	if err := p.Allows(w.names, w.key); err != nil {
		return err
	}
	if err := a.validateKey(w.key); err != nil {
		return denial.New(denial.SoundPublicKey, "%v", err)
	}
	return nil
}

// notRevoked refuses a peer whose certificate, or one before it, was revoked.
func (a *Authority) notRevoked(ctx context.Context, c caller, lineage string) error {
	bad, err := a.record.LineageRevoked(ctx, lineage)
	if err == nil && bad {
		err = denial.New(denial.Revoked, "certificate %s or one before it was revoked", certs.HexSerial(c.serial))
	}
	return err
}

// serviceFor returns the profile of the caller's service. Without a profile nothing is
// issued, which is a denial by the rule [denial.Profile].
func (st *state) serviceFor(c caller) (*policy.Service, error) {
	if c.kind == callerAuthority {
		return st.rules.Own, nil
	}
	p, ok := st.rules.Services[c.service]
	if !ok {
		return nil, denial.New(denial.Profile, "service %.80q has no profile", c.service)
	}
	return p, nil
}

// recordDenial records a denial in metrics, audit log and record, within the quota of
// the caller. It returns err unchanged, and does nothing for other kinds of errors.
func (a *Authority) recordDenial(ctx context.Context, c caller, w accessRequest, err error) error {
	r, ok := errors.AsType[*denial.Error](err)
	if !ok {
		return err
	}
	a.metrics.refused.WithLabelValues(string(r.Rule)).Inc()
	if !a.refusals.allow(c.counted(), time.Now()) {
		return err
	}
	a.writeAudit(ctx, c, auditlog.Line{Action: string(w.action), Outcome: auditlog.Refused, Serial: c.serial, Rule: string(r.Rule)})
	// The client may have gone, which ends ctx. Its attempt must be recorded all the same.
	if recordErr := a.record.Refuse(context.WithoutCancel(ctx), record.Event{
		At: time.Now(), Caller: c.name, Service: c.service, Serial: c.serial, Rule: string(r.Rule), Detail: clip(string(w.action) + ": " + r.Text),
	}); recordErr != nil {
		a.logger.ErrorContext(ctx, "refusal not recorded", "service", c.service, "err", recordErr)
	}
	return err
}

// quota bounds how many refusals of one credential are recorded in an hour, so that its
// holder cannot fill the disk. The metrics count all of them.
type quota struct {
	mu     sync.Mutex
	counts lru.Cache[string, *hourly]
}

type hourly struct {
	since time.Time
	used  int
}

// allow reports whether one more refusal may be recorded, and counts it. All credentials
// of the caller must have room.
func (q *quota) allow(list []credential, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range list {
		n, ok := q.counts.Get(c.id)
		if !ok {
			n = &hourly{since: now}
			q.counts.Add(c.id, n, maxCredentials)
		}
		if now.Sub(n.since) >= time.Hour {
			*n = hourly{since: now}
		}
		if n.used >= c.most {
			return false
		}
		n.used++
	}
	return true
}

// maxSoundKeys bounds the memory of RSA keys that have passed validateKey, 32 bytes each.
const maxSoundKeys = 10_000

// validateKey is [pubkey.Validate], the expensive half of checking a key. It runs only
// after the caller was authenticated. An RSA key that has passed is remembered, so that
// its renewals do not cost the test again.
func (a *Authority) validateKey(key crypto.PublicKey) error {
	k, ok := key.(*rsa.PublicKey)
	if !ok {
		return pubkey.Validate(key)
	}
	id := sha256.Sum256(x509.MarshalPKCS1PublicKey(k))
	a.soundKeys.Lock()
	_, known := a.soundKeys.Get(id)
	a.soundKeys.Unlock()
	if known {
		return nil
	}
	if err := pubkey.Validate(key); err != nil {
		return err
	}
	a.soundKeys.Lock()
	defer a.soundKeys.Unlock()
	if _, known := a.soundKeys.Get(id); !known { // another request may have been faster
		a.soundKeys.Add(id, struct{}{}, maxSoundKeys)
	}
	return nil
}

// writeAudit writes a line to the audit log, after the commit. A failure is counted and
// logged, because the certificate or the revocation is in the record already.
func (a *Authority) writeAudit(ctx context.Context, c caller, line auditlog.Line) {
	line.Caller, line.Address = c.name, addressIn(ctx)
	if line.Service == "" {
		line.Service = c.service
	}
	a.auditMu.RLock()
	defer a.auditMu.RUnlock()
	if err := a.audit.Write(line); err != nil {
		a.metrics.auditFailures.Inc()
		a.logger.ErrorContext(ctx, "audit log not written", "path", a.audit.Path(), "err", err)
	}
}

// addressKey is the key in a context for the address of the client. Issuing and
// revoking do not see the request, and write the address to the audit log.
type addressKey struct{}

func withAddress(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), addressKey{}, r.RemoteAddr))
}

func addressIn(ctx context.Context) string {
	s, _ := ctx.Value(addressKey{}).(string)
	return s
}
