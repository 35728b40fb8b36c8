package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// Rules that refuse, as they stand in answers, in the record and in metrics.
const (
	ruleProfile     = "profile"  // the service has one
	ruleNames       = "names"    // each name is in it
	ruleKey         = "key type" // the key is of a kind that it lists
	ruleLifetime    = "lifetime"
	ruleToken       = "token used once"
	ruleRevoked     = "lineage not revoked"
	ruleSelf        = "revokes only itself"
	ruleRequest     = "request equals token"
	ruleIssuer      = "within the issuer's life"
	ruleProof       = "within the proof's life"
	ruleGrace       = "grace after expiry"
	ruleRoot        = "chains to a root of today"
	ruleHolder      = "names of its own certificate"
	ruleProvisioner = "profiles of the provisioner"
	ruleACME        = "names of one profile with acme"
	ruleLoopback    = "no loopback names"
	ruleMaxLive     = "live certificates"
	ruleLineage     = "live certificates of a lineage"
	ruleEnroller    = "enroller" // the service is one, for the service that it asks for
	ruleAuditor     = "auditor"  // the service is one
	ruleSound       = "sound public key"
)

// refusal is a denied request: a rule and a text for the one who asked.
type refusal struct {
	status int // HTTP
	rule   string
	text   string
}

func (r *refusal) Error() string { return r.text + " (rule: " + r.rule + ")" }

func refuse(rule, format string, args ...any) error {
	status := http.StatusForbidden
	switch rule {
	case ruleToken, ruleRevoked, ruleGrace, ruleRoot: // the credential itself is no good any more
		status = http.StatusUnauthorized
	}
	return &refusal{status, rule, fmt.Sprintf(format, args...)}
}

// caller is who asks, after authentication. Only the functions below make one,
// each from a credential that was checked.
type caller struct {
	kind    callerKind
	name    string // as it is recorded
	service string // that it speaks for, once that is proven; empty before
	serial  string // certificate that a peer showed, or that a revoke token names

	credentials []credential // that were verified, the narrowest first
}

// credential is what the refusals of a caller are counted by. It was verified, so
// nobody uses up the count of another. Names in a request are not: their sender
// chooses them freely.
type credential struct {
	id   string
	most int // refusals that are recorded in an hour
}

const (
	refusalsPerHour  = 100
	refusalsPerToken = 10     // one token must not use up the count of its provisioner
	maxCredentials   = 10_000 // remembered at once
)

// byLineage is the credential of who has shown a certificate of this authority: a
// renewal does not start a new count.
func byLineage(e store.Certificate) []credential {
	return []credential{{"lineage " + e.Lineage, refusalsPerHour}}
}

func byCertificate(c *x509.Certificate) []credential {
	return []credential{{"certificate " + pemfile.Fingerprint(c), refusalsPerHour}}
}

// byEnrolmentKey is the credential of a token that an enrolment key signed. That key
// can name any service, so the service in the token is no part of it.
func byEnrolmentKey(c *claims, token store.Token) []credential {
	return []credential{
		{"token " + hex.EncodeToString(token.Hash[:]), refusalsPerToken},
		{"provisioner " + c.provisioner(), refusalsPerHour},
	}
}

// counted are the credentials of c; callers on this machine have none.
func (c caller) counted() []credential {
	if len(c.credentials) == 0 {
		return []credential{{"caller " + c.name, refusalsPerHour}}
	}
	return c.credentials
}

type callerKind int

const (
	byToken callerKind = iota + 1
	byPeer
	byItself
	byOperator // has the state directory
	byHolder   // signed a token with the key of its certificate
	byAccount  // has an ACME account, and proved the names
)

type action string

const (
	actSign   action = "sign"
	actRenew  action = "renew"
	actRekey  action = "rekey"
	actRevoke action = "revoke"
	actRead   action = "read the record"
	actToken  action = "make a token"
)

// want is what a caller asks for.
type want struct {
	action   action
	names    []string
	key      crypto.PublicKey
	previous *store.Certificate // to renew
	lineage  string             // of the certificate to read or to make a token with
	service  string             // to make a token for
	serial   string             // of the certificate to revoke, decimal
}

// allow is the one door: everything that issues or revokes asks it, and it
// records whom it turns away.
func (a *Authority) allow(ctx context.Context, st *state, c caller, w want) error {
	err := a.judge(ctx, st, c, w)
	if err == nil {
		return nil
	}
	return a.turnAway(ctx, c, w, err)
}

func (a *Authority) judge(ctx context.Context, st *state, c caller, w want) error {
	if w.action == actRevoke {
		if c.kind != byOperator && c.serial != w.serial {
			return refuse(ruleSelf, "%s may revoke certificate %s only", c.name, pemfile.HexSerial(c.serial))
		}
		return nil
	}
	if w.action == actRead && !slices.Contains(st.config.Auditors, c.service) {
		return refuse(ruleAuditor, "service %.80q is not an auditor (pki.yaml, auditors)", c.service)
	}
	if w.action == actToken {
		return a.judgeToken(ctx, st, c, w)
	}
	p, err := st.profile(c)
	if err != nil {
		return err
	}
	// Whether one before it was, the commit decides: a look here would be one too early, and one more.
	if w.previous != nil && w.previous.Revocation != nil {
		return refuse(ruleRevoked, "certificate %s was revoked", pemfile.HexSerial(c.serial))
	}
	if w.action == actRead { // no commit follows that would decide
		return a.notRevoked(ctx, c, w.lineage)
	}
	if err := p.allows(w.names, w.key); err != nil {
		return err
	}
	if err := a.validateKey(w.key); err != nil {
		return refuse(ruleSound, "%v", err)
	}
	return nil
}

// notRevoked refuses a peer whose certificate, or one before it, was revoked.
func (a *Authority) notRevoked(ctx context.Context, c caller, lineage string) error {
	bad, err := a.record.LineageRevoked(ctx, lineage)
	if err == nil && bad {
		err = refuse(ruleRevoked, "certificate %s or one before it was revoked", pemfile.HexSerial(c.serial))
	}
	return err
}

// profile is deny by default: no profile, no certificate.
func (st *state) profile(c caller) (*profile, error) {
	if c.kind == byItself {
		return st.rules.own, nil
	}
	p, ok := st.rules.profiles[c.service]
	if !ok {
		return nil, refuse(ruleProfile, "service %.80q has no profile", c.service)
	}
	return p, nil
}

// turnAway records a refusal and returns it; other errors pass.
func (a *Authority) turnAway(ctx context.Context, c caller, w want, err error) error {
	var r *refusal
	if !errors.As(err, &r) {
		return err
	}
	a.metrics.refused.WithLabelValues(r.rule).Inc()
	if !a.refusals.take(c.counted(), time.Now()) {
		return err
	}
	a.tell(ctx, c, auditLine{Action: string(w.action), Outcome: outcomeRefused, Serial: c.serial, Rule: r.rule})
	// The request may be gone already; what it tried must still be recorded.
	if recordErr := a.record.Refuse(context.WithoutCancel(ctx), store.Event{
		At: time.Now(), Caller: c.name, Service: c.service, Serial: c.serial, Rule: r.rule, Detail: clip(string(w.action) + ": " + r.text),
	}); recordErr != nil {
		a.logger.ErrorContext(ctx, "refusal not recorded", "service", c.service, "err", recordErr)
	}
	return err
}

// quota keeps the holder of a credential from filling the disk with its refusals.
// They go on being counted in the metrics.
type quota struct {
	mu     sync.Mutex
	counts recent[string, *hourly]
}

type hourly struct {
	since time.Time
	used  int
}

// take reports whether each of the credentials may have one more refusal recorded.
func (q *quota) take(list []credential, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range list {
		n, ok := q.counts.get(c.id)
		if !ok {
			n = &hourly{since: now}
			q.counts.add(c.id, n, maxCredentials)
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
