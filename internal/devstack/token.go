package devstack

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/artstore/artstore-pki/internal/uuid"
	"github.com/artstore/artstore-pki/secret"
)

const (
	// maxTokenRequest bounds the body of a token request, in bytes.
	maxTokenRequest   = 16 << 10
	grantCredentials  = "client_credentials"
	allScopes         = "files:read files:write storage:read"
	tokenTypeBearer   = "Bearer"
	typeServiceAccess = "service_account"
	// accountRateLimit is only a claim: nothing here enforces it.
	accountRateLimit = 100
)

// claims has what ArtStore's Python services expect (type, role, rate_limit), what its Go
// services expect (scope, scopes), and the confirmation of RFC 8705 §3.1.
type claims struct {
	jwt.Claims
	Type      string        `json:"type"`
	Role      string        `json:"role"`
	Name      string        `json:"name"`
	ClientID  string        `json:"client_id"`
	RateLimit int           `json:"rate_limit"`
	Scope     string        `json:"scope"`
	Scopes    []string      `json:"scopes"`
	Confirm   *confirmation `json:"cnf,omitempty"`
}

// confirmation is the claim cnf (RFC 7800 §3.1).
type confirmation struct {
	// Thumbprint is the SHA-256 of the certificate in DER, in base64url.
	Thumbprint string `json:"x5t#S256"`
}

// tokenRequest is a request that was parsed. Its secret is not verified yet.
type tokenRequest struct {
	id     string
	secret secret.String
	// scopes are granted if the secret is right.
	scopes []string
}

// fieldError is one entry of a 422 in the form of pydantic, without the member "input", in
// which the real service echoes the secret.
type fieldError struct {
	Type string   `json:"type"`
	Loc  []string `json:"loc"`
	Msg  string   `json:"msg"`
}

// parseTokenJSON reads the request of the Python dialect. Unknown fields are ignored, as in
// the real service. All faulty fields are reported at once.
func parseTokenJSON(body []byte) (tokenRequest, []fieldError) {
	var in struct {
		ID     *string `json:"client_id"`
		Secret *string `json:"client_secret"`
		Grant  *string `json:"grant_type"`
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&in); err != nil {
		return tokenRequest{}, []fieldError{{Type: "json_invalid", Loc: []string{"body"}, Msg: "JSON decode error"}}
	}
	var bad []fieldError
	missing := func(name string, v *string) {
		switch {
		case v == nil:
			bad = append(bad, fieldError{Type: "missing", Loc: []string{"body", name}, Msg: "Field required"})
		case *v == "":
			bad = append(bad, fieldError{Type: "string_too_short", Loc: []string{"body", name}, Msg: "String should have at least 1 character"})
		}
	}
	missing("client_id", in.ID)
	missing("client_secret", in.Secret)
	if in.Grant != nil && *in.Grant != grantCredentials {
		bad = append(bad, fieldError{Type: "value_error", Loc: []string{"body", "grant_type"}, Msg: "Only client_credentials is supported"})
	}
	if bad != nil {
		return tokenRequest{}, bad
	}
	return tokenRequest{id: *in.ID, secret: secret.New(*in.Secret), scopes: strings.Fields(allScopes)}, nil
}

// oauthError is an error answer of RFC 6749 §5.2.
type oauthError struct {
	status      int
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

// badRequest is an error with status 400.
func badRequest(code, description string) *oauthError {
	return &oauthError{status: http.StatusBadRequest, Code: code, Description: description}
}

// parseTokenForm reads a request of RFC 6749 §4.4.2. The credentials are in the body, or in
// HTTP Basic: those are given as split at the colon, and still form-encoded.
func parseTokenForm(body []byte, basicID, basicSecret string, hasBasic bool) (tokenRequest, *oauthError) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return tokenRequest{}, badRequest("invalid_request", "the body is not form-encoded")
	}
	for _, values := range form {
		if len(values) > 1 { // RFC 6749 §3.2: parameters must not be repeated
			return tokenRequest{}, badRequest("invalid_request", "a parameter is repeated")
		}
	}
	switch form.Get("grant_type") {
	case grantCredentials:
	case "":
		return tokenRequest{}, badRequest("invalid_request", "grant_type is missing")
	default:
		return tokenRequest{}, badRequest("unsupported_grant_type", "only client_credentials is supported")
	}
	req := tokenRequest{id: form.Get("client_id"), secret: secret.New(form.Get("client_secret")), scopes: strings.Fields(allScopes)}
	if hasBasic {
		if !req.secret.IsZero() {
			return tokenRequest{}, badRequest("invalid_request", "more than one way of client authentication")
		}
		// RFC 6749 §2.3.1: both halves are form-encoded before they become Basic.
		id, err1 := url.QueryUnescape(basicID)
		plain, err2 := url.QueryUnescape(basicSecret)
		if err1 != nil || err2 != nil || (req.id != "" && req.id != id) {
			return tokenRequest{}, badRequest("invalid_request", "the Authorization header is malformed")
		}
		req.id, req.secret = id, secret.New(plain)
	}
	if req.id == "" || req.secret.IsZero() {
		return tokenRequest{}, &oauthError{status: http.StatusUnauthorized, Code: "invalid_client", Description: "client authentication is missing"}
	}
	if asked := strings.Fields(form.Get("scope")); len(asked) > 0 {
		for _, s := range asked {
			if !slices.Contains(req.scopes, s) {
				return tokenRequest{}, badRequest("invalid_scope", "a scope is unknown")
			}
		}
		req.scopes = asked
	}
	return req, nil
}

// serveTokenJSON is POST /api/v1/auth/token.
func (a *Admin) serveTokenJSON(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	body, ok := readBody(w, r, maxTokenRequest)
	if !ok {
		writeJSON(w, http.StatusRequestEntityTooLarge, map[string]string{"detail": "Request too large"})
		return
	}
	req, bad := parseTokenJSON(body)
	if mediaType(r) != "application/json" {
		bad = []fieldError{{Type: "model_attributes_type", Loc: []string{"body"}, Msg: "Input should be a valid dictionary"}}
	}
	if bad != nil {
		a.metrics.token("python", "malformed", start)
		writeJSON(w, http.StatusUnprocessableEntity, map[string]any{"detail": bad})
		return
	}
	token, err := a.issue(r, req)
	if err != nil {
		a.metrics.token("python", "refused", start)
		a.refused(r, err)
		noStore(w)
		if tooMany, ok := errors.AsType[*tooManyGuesses](err); ok { // RFC 6585 §4
			w.Header().Set("Retry-After", tooMany.seconds())
			writeJSON(w, http.StatusTooManyRequests, map[string]string{"detail": tooMany.Error()})
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_client"`)
		writeJSON(w, http.StatusUnauthorized, map[string]string{"detail": "Invalid client_id or client_secret"})
		return
	}
	a.metrics.token("python", "issued", start)
	noStore(w)
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token":  token,
		"refresh_token": rand.Text(), // ArtStore sends one that no endpoint takes; so do we
		"token_type":    tokenTypeBearer,
		"expires_in":    int(a.cfg.TokenLifetime.Seconds()),
		"issued_at":     time.Now().UTC().Format("2006-01-02T15:04:05.000000-07:00"),
	})
}

// serveTokenForm is the token endpoint of Keycloak (RFC 6749 §3.2). Its errors are those of
// RFC 6749 §5.2, and no answer may be cached.
func (a *Admin) serveTokenForm(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	noStore(w)
	refuse := func(result string, e *oauthError) {
		a.metrics.token("go", result, start)
		if e.status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Basic realm="artstore"`)
		}
		writeJSON(w, e.status, e)
	}
	body, ok := readBody(w, r, maxTokenRequest)
	switch {
	case !ok:
		refuse("malformed", &oauthError{status: http.StatusRequestEntityTooLarge, Code: "invalid_request", Description: "the body is too large"})
		return
	case mediaType(r) != "application/x-www-form-urlencoded":
		refuse("malformed", badRequest("invalid_request", "the body is not form-encoded"))
		return
	}
	id, plain, hasBasic := r.BasicAuth()
	req, bad := parseTokenForm(body, id, plain, hasBasic)
	if bad != nil {
		refuse("malformed", bad)
		return
	}
	token, err := a.issue(r, req)
	if err != nil {
		a.refused(r, err)
		if tooMany, ok := errors.AsType[*tooManyGuesses](err); ok {
			w.Header().Set("Retry-After", tooMany.seconds())
			refuse("refused", &oauthError{status: http.StatusTooManyRequests, Code: "temporarily_unavailable", Description: tooMany.Error()})
			return
		}
		refuse("refused", &oauthError{status: http.StatusUnauthorized, Code: "invalid_client", Description: "Invalid client or Invalid client credentials"})
		return
	}
	a.metrics.token("go", "issued", start)
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": token, "expires_in": int(a.cfg.TokenLifetime.Seconds()), "refresh_expires_in": 0,
		"token_type": tokenTypeBearer, "not-before-policy": 0, "scope": strings.Join(req.scopes, " "),
	})
}

var (
	errCredentials = errors.New("the credentials are wrong or the account is suspended")
	errNoPeer      = errors.New("tokens are bound to client certificates and the client has none")
)

// issue verifies the secret and signs a token. A token is bound to the certificate of the
// connection (RFC 8705 §3); without one it is refused rather than sent unbound.
func (a *Admin) issue(r *http.Request, req tokenRequest) (string, error) {
	var acc account
	ok, wait := a.guesses.try(r.Context(), peerName(r), req.id, func() (ok bool) {
		acc, ok = a.accounts.authenticate(r.Context(), req.id, req.secret)
		return ok
	})
	switch {
	case wait > 0:
		return "", &tooManyGuesses{wait}
	case !ok:
		return "", errCredentials
	}
	now := time.Now().Add(a.cfg.ClockOffset)
	c := claims{
		Claims: jwt.Claims{
			Issuer: a.cfg.Issuer, Subject: acc.Subject, ID: uuid.New(),
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(a.cfg.TokenLifetime)),
		},
		Type: typeServiceAccess, Role: acc.Role, Name: acc.Name, ClientID: acc.ClientID, RateLimit: accountRateLimit,
		Scope: strings.Join(req.scopes, " "), Scopes: req.scopes,
	}
	if a.cfg.BoundTokens {
		thumb, ok := peerThumbprint(r)
		if !ok {
			return "", errNoPeer
		}
		c.Confirm = &confirmation{Thumbprint: thumb}
	}
	token, err := jwt.Signed(a.keys.ring.Load().signer).Claims(c).Serialize()
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return token, nil
}

// readBody reads at most limit bytes within answerTime; ok is false if there are
// more, if they take longer, or if the client went away.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) (body []byte, ok bool) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(answerTime)) // fails for the recorder of a test only
	defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	return body, err == nil
}

// mediaType returns the type without its parameters, "" if there is none.
func mediaType(r *http.Request) string {
	mt, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return mt
}

// noStore keeps tokens out of caches (RFC 6749 §5.1).
func noStore(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
}

func base64URL(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
