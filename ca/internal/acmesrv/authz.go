package acmesrv

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/smallstep/certificates/acme"

	"github.com/artstore/artstore-pki/ca/internal/challenge"
	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/ca/internal/problem"
)

// wireAuthorization is an authorization as it is sent (RFC 8555 §7.1.4).
type wireAuthorization struct {
	Identifier acme.Identifier `json:"identifier"`
	Status     acme.Status     `json:"status"`
	Expires    time.Time       `json:"expires"`
	Challenges []wireChallenge `json:"challenges"`
	Wildcard   bool            `json:"wildcard,omitempty"`
}

// wireChallenge is a challenge as it is sent (RFC 8555 §7.1.5, §8).
type wireChallenge struct {
	Type      acme.ChallengeType `json:"type"`
	URL       string             `json:"url"`
	Status    acme.Status        `json:"status"`
	Token     string             `json:"token"`
	Validated string             `json:"validated,omitempty"`
	Error     json.Marshaler     `json:"error,omitempty"`
}

// wireChallenge returns a challenge in its wire form. The error of a failed one is a problem
// document (RFC 8555 §8).
func (s *session) wireChallenge(ch *acme.Challenge) wireChallenge {
	out := wireChallenge{Type: ch.Type, URL: s.link("challenge", ch.AuthorizationID, ch.ID), Status: ch.Status, Token: ch.Token, Validated: ch.ValidatedAt}
	if ch.Error != nil {
		out.Error = problemOf(ch.Error)
	}
	return out
}

// postAuthorization reads an authorization, or deactivates it, which makes its order invalid
// (RFC 8555 §7.5, §7.5.2).
func (s *session) postAuthorization(w http.ResponseWriter, r *http.Request) error {
	id := chi.URLParam(r, "id")
	az, err := s.record.GetAuthorization(r.Context(), id)
	if err != nil {
		return err
	}
	if az.AccountID != s.call.account.ID {
		return problem.New(problem.Unauthorized, "the authorization is another account's")
	}
	if len(s.call.payload) > 0 {
		var req struct {
			Status acme.Status `json:"status"`
		}
		if err := json.Unmarshal(s.call.payload, &req); err != nil || req.Status != acme.StatusDeactivated {
			return malformed(`an authorization can be read with an empty payload, or given up with {"status": "deactivated"}`)
		}
		if err := s.record.DeactivateAuthorization(r.Context(), id); err != nil {
			return err
		}
		if az, err = s.record.GetAuthorization(r.Context(), id); err != nil {
			return err
		}
	}
	return s.writeAuthorization(w, az)
}

// writeAuthorization answers an authorization object. The record keeps the status that the
// authorization had when it was last changed, so expiry is computed here.
func (s *session) writeAuthorization(w http.ResponseWriter, az *acme.Authorization) error {
	out := wireAuthorization{Identifier: az.Identifier, Status: az.Status, Expires: az.ExpiresAt, Wildcard: names.IsWildcard(az.Identifier.Value)}
	out.Identifier.Value = strings.TrimPrefix(az.Identifier.Value, "*.") // RFC 8555 §7.1.4
	if !time.Now().Before(az.ExpiresAt) {                                // RFC 8555 §7.1.6
		switch az.Status {
		case acme.StatusPending:
			out.Status = acme.StatusInvalid
		case acme.StatusValid:
			out.Status = "expired"
		}
	}
	for _, ch := range az.Challenges {
		out.Challenges = append(out.Challenges, s.wireChallenge(ch))
	}
	return writeResource(w, http.StatusOK, out)
}

// postChallenge validates a challenge before it answers (RFC 8555 §7.5.1), or shows it to a
// POST-as-GET. A challenge is validated once. If that fails, the order is invalid and the
// client makes another one; retries (RFC 8555 §8.2) are not offered, because they would let
// one order make the authority connect to a host any number of times.
func (s *session) postChallenge(w http.ResponseWriter, r *http.Request) error {
	ch, err := s.record.GetChallenge(r.Context(), chi.URLParam(r, "id"), chi.URLParam(r, "az"))
	if err != nil {
		return err
	}
	if ch.AccountID != s.call.account.ID {
		return problem.New(problem.Unauthorized, "the challenge is another account's")
	}
	az, err := s.record.GetAuthorization(r.Context(), ch.AuthorizationID)
	if err != nil {
		return err
	}
	// The challenges of an authorization that was deactivated or has expired stay pending.
	// Without this check each request for one would make the authority connect again.
	open := az.Status == acme.StatusPending && time.Now().Before(az.ExpiresAt)
	if len(s.call.payload) > 0 && ch.Status == acme.StatusPending && open {
		if err := s.validate(r.Context(), ch); err != nil {
			return err
		}
	}
	w.Header().Add("Link", "<"+s.link("authz", ch.AuthorizationID)+`>;rel="up"`)
	return writeResource(w, http.StatusOK, s.wireChallenge(ch))
}

// validate checks whether a challenge was answered, and stores the outcome in ch and in the
// record. It goes on when the client closes the request: the client asks for the outcome
// later. A failed challenge is no error of validate.
func (s *session) validate(ctx context.Context, ch *acme.Challenge) error {
	keyAuth, err := acme.KeyAuthorization(ch.Token, s.call.account.Key)
	if err != nil {
		return err
	}
	p := s.validator.Validate(s.authority.Life(), challenge.Challenge{Kind: string(ch.Type), Name: ch.Value, Token: ch.Token, KeyAuthorization: keyAuth})
	switch {
	case p == nil:
		ch.Status, ch.ValidatedAt = acme.StatusValid, time.Now().UTC().Format(time.RFC3339)
	case p.Type == problem.RateLimited: // no host was asked, so the challenge stays pending
		return p
	default:
		ch.Status, ch.Error = acme.StatusInvalid, &acme.Error{Type: p.Type.URN(), Detail: p.Detail}
		s.logger.InfoContext(ctx, "challenge failed", "name", ch.Value, "type", p.Type, "err", p.Detail)
	}
	return s.record.UpdateChallenge(context.WithoutCancel(ctx), ch)
}
