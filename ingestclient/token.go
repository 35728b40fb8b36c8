package ingestclient

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/jws"
	"github.com/artstore/artstore-pki/secret"
)

const (
	maxTokenAnswer = 64 << 10
	maxToken       = 16 << 10 // a header much above this is refused by most servers
	maxLifetime    = 24 * time.Hour
)

// token is immutable. Other values have a pointer to it, so that printing them prints an
// address and not the token.
type token struct {
	header []string // value of Authorization, built once: attaching it costs no allocation
	secret secret.String
	bound  bool // to the certificate it was fetched with (RFC 8705); true when that cannot be known
	dates       // by the clock of the issuer

	// The times below count from start, when the request was sent, so that a slow
	// answer never lengthens the life of a token.
	start     time.Time
	got       time.Time     // when the answer had arrived, by the wall clock
	promised  time.Duration // expires_in; 0 if the answer had none
	lifetime  time.Duration
	refreshAt time.Duration // from this age on a new one is fetched in the background
	useUntil  time.Duration // from this age on it is not used
}

type tokenState int

const (
	fresh      tokenState = iota
	refreshDue            // usable, and due for a refresh
	expired
)

// stateAt returns what may be done with t. A nil token is expired.
func (t *token) stateAt(now time.Time) tokenState {
	if t == nil {
		return expired
	}
	// The monotonic clock stops while a machine is suspended, and the wall clock may be
	// set back. So the clock by which more time has passed counts.
	age := max(now.Sub(t.start), now.Round(0).Sub(t.start.Round(0)))
	switch {
	case age < t.refreshAt:
		return fresh
	case age < t.useUntil:
		return refreshDue
	}
	return expired
}

// refreshTimes divides the life of a token. The refresh is due a minute before the end, or a
// fifth of the life if that is shorter, and up to a quarter of that earlier by u in [0, 1),
// so that clients that were started together do not refresh together. The last 5 s (a tenth
// of lives under 50 s) are not used, because a token that expires on its way is answered
// 401.
func refreshTimes(life time.Duration, u float64) (refreshAt, useUntil time.Duration) {
	lead := min(time.Minute, life/5)
	margin := min(5*time.Second, life/10)
	return life - lead - time.Duration(u*float64(lead)/4), life - margin
}

// tokenAnswer is a valid answer of the token endpoint.
type tokenAnswer struct {
	secret   secret.String
	lifetime time.Duration // 0: the answer does not say
	binding
}

// parseTokenAnswer reads the body of a 200: three fields of RFC 6749 §5.1. An absent
// token_type means Bearer, because one of ArtStore's test servers leaves it out. Errors
// never quote the body.
func parseTokenAnswer(body []byte) (tokenAnswer, error) {
	var raw struct {
		AccessToken string          `json:"access_token"`
		TokenType   *string         `json:"token_type"`
		ExpiresIn   json.RawMessage `json:"expires_in"`
	}
	if err := json.Unmarshal(body, &raw); err != nil {
		return tokenAnswer{}, errors.New("not the JSON object of RFC 6749")
	}
	if raw.TokenType != nil && *raw.TokenType != "" && !strings.EqualFold(*raw.TokenType, "Bearer") {
		return tokenAnswer{}, errors.New("token_type is not Bearer")
	}
	if err := checkToken(raw.AccessToken); err != nil {
		return tokenAnswer{}, err
	}
	life, err := parseLifetime(raw.ExpiresIn)
	if err != nil {
		return tokenAnswer{}, err
	}
	return tokenAnswer{secret.New(raw.AccessToken), life, readBinding(raw.AccessToken)}, nil
}

// checkToken refuses a token that cannot be sent in a header.
func checkToken(t string) error {
	if t == "" {
		return errors.New("no access_token")
	}
	if len(t) > maxToken {
		return fmt.Errorf("access_token longer than %d bytes", maxToken)
	}
	for i := range len(t) {
		if t[i] <= ' ' || t[i] > '~' { // RFC 6749 appendix A.12; anything else could split the header
			return errors.New("access_token holds characters that no token has")
		}
	}
	return nil
}

// parseLifetime reads expires_in: seconds as a number or, from some endpoints, as a string.
// The result is 0 if it is absent or null, and a day at most.
func parseLifetime(raw json.RawMessage) (time.Duration, error) {
	text := string(bytes.Trim(bytes.TrimSpace(raw), `"`))
	if text == "" || text == "null" {
		if len(raw) > 0 && raw[0] == '"' {
			return 0, errors.New("expires_in is not a number")
		}
		return 0, nil
	}
	seconds, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || math.IsNaN(seconds) {
		return 0, errors.New("expires_in is not a number")
	}
	if seconds <= 0 {
		return 0, errors.New("expires_in is not positive: the token is over before it is used")
	}
	if seconds >= maxLifetime.Seconds() {
		return maxLifetime, nil
	}
	return max(time.Millisecond, time.Duration(seconds*float64(time.Second))), nil
}

// binding is what a token says about the certificate that it is bound to.
type binding struct {
	known bool   // the token is a JWT, so its claims can be read
	cnf   bool   // it has a confirmation claim
	x5t   string // x5t#S256 (RFC 8705 §3.1), "" if the claim is of another kind
	dates
}

// readBinding reads the claims of a JWT without verifying it, which the Storage Element
// does. It returns the zero value for an opaque token.
func readBinding(t string) binding {
	parts, ok := jws.Split(t)
	if !ok {
		return binding{}
	}
	payload, err := jws.Decode(strings.TrimRight(parts.Payload, "=")) // some services pad
	if err != nil {
		return binding{}
	}
	var claims struct {
		Cnf *struct {
			X5T string `json:"x5t#S256"`
		} `json:"cnf"`
		// Of any type, so that a date of a wrong type does not hide the binding.
		IssuedAt  any `json:"iat"`
		NotBefore any `json:"nbf"`
		Expires   any `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return binding{}
	}
	b := binding{known: true, dates: dates{numericDate(claims.IssuedAt), numericDate(claims.NotBefore), numericDate(claims.Expires)}}
	if claims.Cnf != nil {
		b.cnf, b.x5t = true, claims.Cnf.X5T
	}
	return b
}

// newToken makes a token of an answer. thumb is the thumbprint of the certificate over which
// it was fetched, start is when the request was sent. The error says why the token cannot
// be used.
func newToken(a tokenAnswer, thumb string, start time.Time, s *settings) (*token, error) {
	if a.x5t != "" && strings.TrimRight(a.x5t, "=") != thumb {
		return nil, ErrTokenBinding
	}
	t := &token{
		header: []string{"Bearer " + a.secret.Expose()},
		secret: a.secret,
		bound:  !a.known || a.cnf, // an opaque token may be bound: to assume that costs one fetch per rotation
		dates:  a.dates,
		start:  start,
		got:    time.Now().Round(0),
	}
	t.promised, t.lifetime = a.lifetime, cmp.Or(a.lifetime, s.DefaultTokenLifetime)
	t.refreshAt, t.useUntil = refreshTimes(t.lifetime, s.jitter())
	if t.stateAt(time.Now()) == expired {
		return nil, fmt.Errorf("%w: it was over when it arrived", ErrTokenAnswer)
	}
	return t, nil
}
