package ca

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/auditlog"
	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/ca/internal/validity"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// Enrollers are services that get enrolment tokens for other services, over mutual TLS.
// The authority signs such a token with the enrolment key that an operator would use,
// and writes the enroller into it (claim act, RFC 8693 §4.1). When the token is used, the
// certificate of the enroller must not be revoked, and pki.yaml must still list it as an
// enroller for the service. docs/design/0021-enrollers.md

// evaluateToken decides whether a peer may have a token for a service and names. Its
// errors are those of [Authority.authorize].
func (a *Authority) evaluateToken(ctx context.Context, st *state, c caller, w accessRequest) error {
	if err := st.rules.MayEnrol(c.service, w.service); err != nil {
		return err
	}
	if err := a.notRevoked(ctx, c, w.lineage); err != nil {
		return err
	}
	_, err := st.rules.TokenNames(w.service, w.names)
	return err
}

// stillEnroller checks the enroller of a token when the token is used: by is the
// enroller, other the service that the token is for.
func (a *Authority) stillEnroller(ctx context.Context, st *state, by actor, other string) error {
	entry, err := a.record.Get(ctx, by.Serial)
	if errors.Is(err, record.ErrNotFound) || err == nil && entry.Service != by.Service {
		return denial.New(denial.Enroller, "the certificate that the token was made with is not in the record")
	}
	if err != nil {
		return err
	}
	if err := st.rules.MayEnrol(by.Service, other); err != nil {
		return err
	}
	return a.notRevoked(ctx, callerOf(entry), entry.Lineage)
}

// postToken answers POST /token of an enroller. The token is an event of the record
// before it is sent. The rate is limited for each enroller, before the body is read.
func (a *Authority) postToken(w http.ResponseWriter, r *http.Request) error {
	c, entry, err := a.verifyPeer(r.Context(), r.TLS)
	if err != nil {
		return err
	}
	st := a.state.Load()
	if a.tooSoon(w, r, st.limits.tokens.Take(c.service, time.Now()), limitTokens) {
		return nil
	}
	var req stepapi.TokenRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	claims, err := askedClaims(st, req, entry)
	if err == nil {
		err = a.authorize(r.Context(), st, c, accessRequest{action: actToken, service: req.Service, names: claims.SANs, lineage: entry.Lineage})
	}
	if err != nil {
		return err
	}
	key := st.enrolmentKeys[req.Service]
	claims.Issuer = key.Provisioner
	token, err := key.Sign(claims.at(st.config, stepapi.PathSign, st.roots[0]))
	if err != nil {
		return err
	}
	if err := a.recordToken(r.Context(), c, req.Service, claims); err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusCreated, stepapi.TokenResponse{OTT: token.Expose()})
	return nil
}

// askedClaims returns the claims that the enroller asks for; [Authority.authorize] decides
// whether they are allowed. The token ends with the certificate of the enroller at the
// latest.
func askedClaims(st *state, req stepapi.TokenRequest, entry record.Certificate) (newClaims, error) {
	life := defaultTokenLife
	if req.Lifetime != "" {
		var err error
		if life, err = time.ParseDuration(req.Lifetime); err != nil || life <= 0 || life > maxTokenLife {
			return newClaims{}, denial.BadRequest("lifetime: %.40q is not a duration such as 5m, %s at most", req.Lifetime, maxTokenLife)
		}
	}
	if len(req.Names) > stepapi.MaxNames {
		return newClaims{}, denial.BadRequest("sans: %d names are more than %d", len(req.Names), stepapi.MaxNames)
	}
	asked, err := names.CanonicalAll(req.Names)
	if err != nil {
		return newClaims{}, denial.BadRequest("sans: %v", err)
	}
	if p := st.rules.Services[req.Service]; len(asked) == 0 && p != nil {
		asked = p.Names
	}
	if life = min(life, time.Until(entry.NotAfter)); life <= 0 {
		return newClaims{}, denial.Unauthorized("the client certificate expired at %s", validity.Stamp(entry.NotAfter))
	}
	c, err := freshClaims(life)
	c.Subject, c.SANs, c.Actor = req.Service, asked, &actor{entry.Service, entry.Serial}
	return c, err
}

// recordToken makes the token an event of the record. The event and the logs say until
// when and for which names the token is. They have neither the token nor its id.
func (a *Authority) recordToken(ctx context.Context, c caller, service string, claims newClaims) error {
	err := a.record.Tell(ctx, record.Event{
		At: time.Now(), Kind: kinds.TokenMade, Caller: c.name, Service: service,
		Detail: clip("until " + validity.Stamp(claims.Expiry.Time()) + " for " + strings.Join(claims.SANs, " ")),
	})
	if err != nil {
		return err
	}
	a.metrics.tokens.Inc()
	a.writeAudit(ctx, c, auditlog.Line{Action: string(actToken), Outcome: auditlog.Done, Service: service, Serial: c.serial})
	a.logger.InfoContext(ctx, "token made", "service", service, "caller", c.name)
	return nil
}
