package ingestclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/tlsalert"
)

const userAgent = "artstore-ingestclient"

// oauthCodes are the error codes that may appear in errors and logs. Other text of the
// body may be an echo of the request, and so of the secret.
var oauthCodes = []string{
	"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
	"access_denied", "server_error", "temporarily_unavailable", "slow_down", "rate_limit_exceeded",
}

// tokenRequest builds the request: the form of RFC 6749 §4.4.2, or the JSON object of the
// Python Admin Module. now is the time by the endpoint's clock.
func (s *settings) tokenRequest(ctx context.Context, p clientCredential, now time.Time) (*http.Request, error) {
	h := http.Header{}
	var body []byte
	if s.ClientAuth == AuthJSON {
		h.Set("Content-Type", "application/json")
		b, err := json.Marshal(map[string]string{"grant_type": "client_credentials", "client_id": s.ClientID, "client_secret": p.secret.Expose()})
		if err != nil {
			return nil, errors.New("encoding the credentials failed") // the cause could quote them
		}
		body = b
	} else {
		h.Set("Content-Type", "application/x-www-form-urlencoded")
		form := url.Values{"grant_type": {"client_credentials"}}
		if s.Scope != "" {
			form.Set("scope", s.Scope)
		}
		if err := s.authenticate(form, h, p, now); err != nil {
			return nil, err
		}
		body = []byte(form.Encode())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.token.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	// To ask twice is harmless, so the transport may repeat a request whose connection
	// the server has just closed: Idempotency-Key with a nil value permits that and sends
	// no header. An assertion can be used once, so such a request is not repeated.
	if s.ClientAuth != AuthKeyJWT {
		h["Idempotency-Key"] = nil
	}
	h.Set("Accept", "application/json")
	h.Set("User-Agent", userAgent)
	req.Header = h
	return req, nil
}

// fetch sends one token request over l. It uses the RoundTripper directly, so that the
// secret follows no redirect. Calls do not overlap, so they need no lock for c.
func (s *settings) fetch(ctx context.Context, l *lease, p clientCredential, c *clock) (*token, error) {
	ctx, cancel := context.WithTimeout(ctx, s.TokenTimeout)
	defer cancel()
	start := time.Now()
	req, err := s.tokenRequest(ctx, p, start.Add(c.ahead))
	if err != nil {
		return nil, &AuthError{Temporary: true, Err: err} // a signer in hardware may be available again
	}
	resp, err := tlsalert.RoundTrip(l.token, req)
	if err != nil {
		return nil, &AuthError{Temporary: true, Err: fmt.Errorf("%w: %w", ErrTokenEndpoint, transportError(ctx, err))}
	}
	defer func() { _ = resp.Body.Close() }() // everything of use was read
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer+1))
	if err != nil {
		return nil, &AuthError{Status: resp.StatusCode, Temporary: true, Err: fmt.Errorf("%w: %w", ErrTokenEndpoint, transportError(ctx, err))}
	}
	moved := c.adjust(resp.Header, start, time.Now())
	if resp.StatusCode != http.StatusOK {
		e := refusal(resp, body)
		// If the assertion was dated by a wrong clock, the next one has the right dates.
		e.Temporary = e.Temporary || moved && s.ClientAuth == AuthKeyJWT
		return nil, e
	}
	if len(body) > maxTokenAnswer {
		return nil, &AuthError{Status: resp.StatusCode, Err: fmt.Errorf("%w: longer than %d bytes", ErrTokenAnswer, maxTokenAnswer)}
	}
	answer, err := parseTokenAnswer(body)
	if err != nil {
		return nil, &AuthError{Status: resp.StatusCode, Err: fmt.Errorf("%w: %w", ErrTokenAnswer, err)}
	}
	t, err := newToken(answer, l.thumb, start, s)
	if err != nil {
		return nil, &AuthError{Status: resp.StatusCode, Err: err}
	}
	return t, nil
}

// refusal classifies an answer that is not 200.
func refusal(resp *http.Response, body []byte) *AuthError {
	e := &AuthError{
		Status:     resp.StatusCode,
		Code:       oauthCode(resp.Header, body),
		RetryAfter: retryAfter(resp.Header, time.Now()),
	}
	switch {
	case resp.StatusCode >= 500, resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusRequestTimeout:
		e.Temporary, e.Err = true, ErrTokenEndpoint
	// A redirect is a mistake in TokenURL, or an attempt to get the secret.
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		e.Err = fmt.Errorf("%w: redirects are not followed with a secret", ErrTokenEndpoint)
	case resp.StatusCode < 300:
		e.Err = fmt.Errorf("%w: only status 200 carries a token", ErrTokenAnswer)
	// A proxy with a wrong route answers this too: it is no fault of the account.
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusMethodNotAllowed:
		e.Err = fmt.Errorf("%w: there is none at this URL", ErrTokenEndpoint)
	default:
		e.Err = ErrCredentials
	}
	return e
}

// oauthCode finds the error code in the forms that ArtStore's endpoints use: the object of
// RFC 6749 §5.2, FastAPI's detail, or the challenge of RFC 6750 §3. Unknown codes are "".
func oauthCode(h http.Header, body []byte) string {
	var raw struct {
		Error  any `json:"error"`
		Detail any `json:"detail"`
	}
	_ = json.Unmarshal(body[:min(len(body), maxTokenAnswer)], &raw) // no code is a valid outcome
	code, _ := raw.Error.(string)
	if detail, ok := raw.Detail.(map[string]any); ok && code == "" {
		code, _ = detail["error"].(string)
	}
	if code == "" {
		_, rest, _ := strings.Cut(h.Get("WWW-Authenticate"), `error="`)
		code, _, _ = strings.Cut(rest, `"`)
	}
	if !slices.Contains(oauthCodes, code) {
		return ""
	}
	return code
}

// retryAfter reads the header Retry-After (RFC 9110 §10.2.3), seconds or a date. The result is
// 0 if it cannot be read, or its time is past.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
