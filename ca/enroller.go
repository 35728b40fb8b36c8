package ca

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// Enrollers are services that make enrolment tokens for others, over mutual TLS
// with their certificates. The authority signs such a token with the enrolment key
// that an operator would use, and writes into it who asked (RFC 8693 §4.1, "act"):
// when it is used, that certificate must still be good, and the service still an
// enroller for the other one. docs/design/0021-enrollers.md

// parseEnrollers keeps an enroller from enrolling one: a stolen certificate of the
// first would live on in a lineage that nobody thinks of revoking.
func parseEnrollers(list map[string][]string, profiles map[string]*profile, bad *problems) map[string][]string {
	for _, service := range slices.Sorted(maps.Keys(list)) {
		at := "enrollers." + service
		if p := profiles[service]; p == nil {
			bad.add("enrollers: service %.80q has no profile", service)
		} else if !slices.Contains(usageNames(p.usages), usageClient) {
			bad.add("%s: it shows its certificate as a client, and profiles.%s.usages has no %q", at, service, usageClient)
		}
		if len(list[service]) == 0 {
			bad.add("%s: it lists no services that it may enrol", at)
		}
		for _, other := range list[service] {
			if profiles[other] == nil {
				bad.add("%s: service %.80q has no profile", at, other)
			}
			if _, both := list[other]; both {
				bad.add("%s: %.80q is an enroller itself; enrol it by hand", at, other)
			}
		}
	}
	return list
}

// tokenSigners reads the enrolment keys that tokens for enrollers are signed with;
// none are read where there are no enrollers. The result is by the service that a
// token is for.
func (f files) tokenSigners(r *rules) (map[string]tokenSigner, error) {
	out := make(map[string]tokenSigner)
	read := make(map[string]tokenSigner) // by provisioner: decrypting takes a moment
	for _, enroller := range slices.Sorted(maps.Keys(r.enrollers)) {
		for _, service := range r.enrollers[enroller] {
			p, err := f.signing(r, TokenOptions{Service: service})
			if err != nil {
				return nil, fmt.Errorf("enrollers.%s: %w", enroller, err)
			}
			if _, ok := read[p.name]; !ok {
				if read[p.name], err = f.tokenSigner(r, TokenOptions{Service: service, Provisioner: p.name}); err != nil {
					return nil, fmt.Errorf("enrollers.%s: %w", enroller, err)
				}
			}
			out[service] = read[p.name]
		}
	}
	return out, nil
}

// mayEnrol returns why a service may not make tokens for another one, or nil.
func (r *rules) mayEnrol(service, other string) error {
	list, ok := r.enrollers[service]
	if !ok {
		return refuse(ruleEnroller, "service %.80q is not an enroller (pki.yaml, enrollers)", service)
	}
	if !slices.Contains(list, other) {
		return refuse(ruleEnroller, "enroller %s may not enrol service %.80q (enrollers.%s)", service, other, service)
	}
	return nil
}

// judgeToken decides whether a peer may have a token for a service and names.
func (a *Authority) judgeToken(ctx context.Context, st *state, c caller, w want) error {
	if err := st.rules.mayEnrol(c.service, w.service); err != nil {
		return err
	}
	if err := a.notRevoked(ctx, c, w.lineage); err != nil {
		return err
	}
	_, err := st.rules.tokenNames(w.service, w.names)
	return err
}

// stillEnroller judges a token that a service asked for, at the moment of its use.
func (a *Authority) stillEnroller(ctx context.Context, st *state, by actor, other string) error {
	entry, err := a.record.Get(ctx, by.Serial)
	if errors.Is(err, store.ErrNotFound) || err == nil && entry.Service != by.Service {
		return refuse(ruleEnroller, "the certificate that the token was made with is not in the record")
	}
	if err != nil {
		return err
	}
	if err := st.rules.mayEnrol(by.Service, other); err != nil {
		return err
	}
	return a.notRevoked(ctx, peer(entry), entry.Lineage)
}

// postToken answers an enroller with a token that is in the record.
func (a *Authority) postToken(w http.ResponseWriter, r *http.Request) error {
	c, entry, err := a.verifyPeer(r.Context(), r.TLS)
	if err != nil {
		return err
	}
	st := a.state.Load()
	if a.tooSoon(w, r, st.limits.tokens.take(c.service, time.Now()), limitTokens) {
		return nil
	}
	var req stepapi.TokenRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	claims, err := askedClaims(st, req, entry)
	if err == nil {
		err = a.allow(r.Context(), st, c, want{action: actToken, service: req.Service, names: claims.SANs, lineage: entry.Lineage})
	}
	if err != nil {
		return err
	}
	token, err := st.signing[req.Service].sign(claims.at(st.config, stepapi.PathSign, st.roots[0]))
	if err != nil {
		return err
	}
	if err := a.recordToken(r.Context(), c, req.Service, claims); err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	answer(w, http.StatusCreated, stepapi.TokenResponse{OTT: token.Expose()})
	return nil
}

// askedClaims reads what is asked for; whether it is allowed, [Authority.allow]
// decides. A token does not outlive the certificate that it is asked for with.
func askedClaims(st *state, req stepapi.TokenRequest, entry store.Certificate) (newClaims, error) {
	life := defaultTokenLife
	if req.Lifetime != "" {
		var err error
		if life, err = time.ParseDuration(req.Lifetime); err != nil || life <= 0 || life > maxTokenLife {
			return newClaims{}, badRequest("lifetime: %.40q is not a duration such as 5m, %s at most", req.Lifetime, maxTokenLife)
		}
	}
	if len(req.Names) > stepapi.MaxNames {
		return newClaims{}, badRequest("sans: %d names are more than %d", len(req.Names), stepapi.MaxNames)
	}
	asked, err := names.CanonicalAll(req.Names)
	if err != nil {
		return newClaims{}, badRequest("sans: %v", err)
	}
	if p := st.rules.profiles[req.Service]; len(asked) == 0 && p != nil {
		asked = p.names
	}
	if life = min(life, time.Until(entry.NotAfter)); life <= 0 {
		return newClaims{}, unauthorized("the client certificate expired at %s", stamp(entry.NotAfter))
	}
	c, err := freshClaims(life)
	c.Subject, c.SANs, c.Actor = req.Service, asked, &actor{entry.Service, entry.Serial}
	return c, err
}

// recordToken makes a token an event of the record before anybody has it. The
// token itself is in no log: its claims are, but for its id.
func (a *Authority) recordToken(ctx context.Context, c caller, service string, claims newClaims) error {
	err := a.record.Tell(ctx, store.Event{
		At: time.Now(), Kind: store.TokenMade, Caller: c.name, Service: service,
		Detail: clip("until " + stamp(claims.Expiry.Time()) + " for " + strings.Join(claims.SANs, " ")),
	})
	if err != nil {
		return err
	}
	a.metrics.tokens.Inc()
	a.tell(ctx, c, auditLine{Action: string(actToken), Outcome: outcomeDone, Service: service, Serial: c.serial})
	a.logger.InfoContext(ctx, "token made", "service", service, "caller", c.name)
	return nil
}
