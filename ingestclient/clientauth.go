package ingestclient

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/artstore/artstore-pki/ingestclient/internal/assertion"
	"github.com/artstore/artstore-pki/secret"
)

// ClientAuth is a method by which a client authenticates to the token endpoint. All but
// AuthJSON send the form of RFC 6749 §4.4.2, as Keycloak reads it.
type ClientAuth string

// All methods.
const (
	AuthJSON   ClientAuth = "json"            // id and secret in a JSON object, as the Python Admin Module reads it
	AuthPost   ClientAuth = "post"            // id and secret in the body (RFC 6749 §2.3.1)
	AuthBasic  ClientAuth = "basic"           // id and secret as HTTP Basic (RFC 6749 §2.3.1)
	AuthKeyJWT ClientAuth = "private_key_jwt" // an assertion signed with Config.ClientKey (RFC 7523 §2.2)
	AuthTLS    ClientAuth = "tls_client_auth" // the certificate of the identity, without a secret (RFC 8705 §2.1)
)

const (
	assertionLife = time.Minute      // the longest that Keycloak allows; an assertion is used once, at once
	skewMatters   = 10 * time.Second // the smallest difference of clocks that changes an assertion
)

// checkAuth fills in ClientAuth and refuses a configuration in which a credential
// is missing or would be ignored.
func (s *settings) checkAuth() (errs []error) {
	fail := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if s.ClientAuth == "" {
		s.ClientAuth = AuthJSON
		if s.ClientKey != nil {
			s.ClientAuth = AuthKeyJWT
		}
	}
	wantSecret, wantKey := false, false
	switch s.ClientAuth {
	case AuthJSON, AuthPost, AuthBasic:
		wantSecret = true
	case AuthKeyJWT:
		wantKey = true
	case AuthTLS:
		if !s.identified || s.token != nil && !secure(s.token) {
			fail("ClientAuth tls_client_auth proves the client by its certificate: it needs an identity and an https TokenURL")
		}
	default:
		fail("unknown ClientAuth %q: use json, post, basic, private_key_jwt or tls_client_auth", s.ClientAuth)
		return errs
	}
	for name, f := range map[string]struct{ given, want bool }{
		"ClientSecret": {s.ClientSecret != nil, wantSecret}, "ClientKey": {s.ClientKey != nil, wantKey},
	} {
		switch {
		case f.want && !f.given:
			fail("%s is nil: ClientAuth %s needs it", name, s.ClientAuth)
		case f.given && !f.want:
			fail("%s is set, and ClientAuth %s would ignore it", name, s.ClientAuth)
		}
	}
	return errs
}

// clientCredential is the secret or the key of one token request. It is loaded for each,
// because secrets and keys rotate too.
type clientCredential struct {
	secret secret.String
	key    crypto.Signer
	kid    string
	digest [sha256.Size]byte // of the secret or the key: if it changes, an earlier refusal does not count
}

// loadCredential asks for the secret or the key. Its errors are temporary: a file or a key
// store may be available again.
func (s *settings) loadCredential(ctx context.Context) (clientCredential, error) {
	switch {
	case s.ClientSecret != nil:
		sec, err := s.ClientSecret(ctx)
		if err != nil {
			return clientCredential{}, fmt.Errorf("reading the client secret: %w", err)
		}
		return clientCredential{secret: sec, digest: sha256.Sum256([]byte(sec.Expose()))}, nil
	case s.ClientKey != nil:
		key, kid, err := s.ClientKey(ctx)
		if err == nil && key == nil {
			err = errors.New("there is none")
		}
		if err != nil {
			return clientCredential{}, fmt.Errorf("reading the client key: %w", err)
		}
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			return clientCredential{}, fmt.Errorf("reading the client key: %w", err)
		}
		return clientCredential{key: key, kid: kid, digest: sha256.Sum256(append(der, kid...))}, nil
	}
	return clientCredential{}, nil // the certificate of the connection authenticates the client
}

// authenticate adds p to the form of a request, or to its header. now is the time by the
// endpoint's clock.
func (s *settings) authenticate(form url.Values, h http.Header, p clientCredential, now time.Time) error {
	switch s.ClientAuth {
	case AuthBasic:
		// RFC 6749 §2.3.1: both are form-encoded before they are joined by a colon.
		req := http.Request{Header: h}
		req.SetBasicAuth(url.QueryEscape(s.ClientID), url.QueryEscape(p.secret.Expose()))
		return nil
	case AuthPost:
		form.Set("client_secret", p.secret.Expose())
	case AuthKeyJWT:
		signed, err := assertion.Sign(assertion.Claims{
			ClientID: s.ClientID, Audience: s.token.String(), IssuedAt: now, Life: assertionLife,
		}, p.key, p.kid)
		if err != nil {
			return fmt.Errorf("making the client assertion: %w", err)
		}
		form.Set("client_assertion_type", assertion.Type)
		form.Set("client_assertion", signed)
	}
	// RFC 8705 §2.1 demands the id in the body; RFC 7521 §4.2 allows it.
	form.Set("client_id", s.ClientID)
	return nil
}

// clock is how far the token endpoint's clock is ahead of ours, by the Date of its answers.
// The endpoint checks an assertion by its own clock, so with a wrong clock here it would
// always refuse.
type clock struct{ ahead time.Duration }

// adjust reads the Date of an answer to a request that was sent at start. It reports whether
// that changes the dates of the next assertion.
func (c *clock) adjust(h http.Header, start, now time.Time) bool {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return false
	}
	// The endpoint wrote the Date between start and now. It is rounded down, by half a second on average.
	ahead := date.Add(time.Second / 2).Sub(start.Add(now.Sub(start) / 2))
	if clockOff(date, start, now).Abs() < skewMatters {
		ahead = 0 // the answer may only have taken long
	}
	if (ahead - c.ahead).Abs() < skewMatters {
		return false
	}
	c.ahead = ahead
	return true
}
