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

// ClientAuth is how a client proves to the token endpoint who it is. All but
// AuthJSON send the form of RFC 6749 §4.4.2, as Keycloak reads it.
type ClientAuth string

// The methods there are.
const (
	AuthJSON   ClientAuth = "json"            // id and secret in a JSON object, as the Python Admin Module reads it
	AuthPost   ClientAuth = "post"            // id and secret in the body: RFC 6749 §2.3.1
	AuthBasic  ClientAuth = "basic"           // the same, as HTTP Basic
	AuthKeyJWT ClientAuth = "private_key_jwt" // an assertion signed with Config.ClientKey: RFC 7523 §2.2
	AuthTLS    ClientAuth = "tls_client_auth" // by the certificate of the identity, without a secret: RFC 8705 §2.1
)

const (
	assertionLife = time.Minute      // what Keycloak allows; an assertion is used once, at once
	skewMatters   = 10 * time.Second // servers forgive less, and Date has whole seconds
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

// clientCredential is what one token request is signed with. It is obtained anew for each,
// because secrets and keys rotate too.
type clientCredential struct {
	secret secret.String
	key    crypto.Signer
	kid    string
	digest [sha256.Size]byte // another one after a change of either: then a refusal of the old one is void
}

// loadCredential asks for the secret or the key. Its error is worth another try: files
// and key stores come back.
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
	return clientCredential{}, nil // the certificate of the connection is the proof
}

// authenticate puts p into the form of a request, or into its header.
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
	// RFC 8705 §2.1 wants the id in the body; RFC 7521 §4.2 allows it.
	form.Set("client_id", s.ClientID)
	return nil
}

// clock is the difference between the token endpoint's clock and ours, as its
// answers tell it. An assertion is judged by the endpoint's clock, so with a
// wrong clock of our own it would be refused for ever.
type clock struct{ ahead time.Duration }

// adjust reads the Date of an answer to a request that was sent at start, and
// reports whether that changes what an assertion says.
func (c *clock) adjust(h http.Header, start, now time.Time) bool {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return false
	}
	// The endpoint wrote it somewhere between the two; Date drops half a second on average.
	ahead := date.Add(time.Second / 2).Sub(start.Add(now.Sub(start) / 2))
	if clockOff(date, start, now).Abs() < skewMatters {
		ahead = 0 // an answer that took long proves nothing
	}
	if (ahead - c.ahead).Abs() < skewMatters {
		return false
	}
	c.ahead = ahead
	return true
}
