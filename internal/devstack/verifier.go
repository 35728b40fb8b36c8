package devstack

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	// maxJWKS bounds a key set, and maxTokenBytes a token, in bytes.
	maxJWKS       = 256 << 10
	maxTokenBytes = 16 << 10
	// maxCachedTokens bounds the memory of the cache.
	maxCachedTokens = 4096
	minRSABits      = 2048
	// tokenLeeway is that of ArtStore's Go Storage Element.
	tokenLeeway        = 5 * time.Second
	defaultJWKSRefresh = 15 * time.Second
	jwksTimeout        = 10 * time.Second
	// minJWKSInterval bounds the fetches that requests can cause. Otherwise tokens with an
	// invented kid would make this server flood the Admin Module.
	minJWKSInterval = time.Second
)

var (
	errNoToken     = errors.New("there is no bearer token")
	errBadToken    = errors.New("the token is not valid")
	errUnknownKey  = errors.New("the token's key is not in the key set")
	errNoKeys      = errors.New("there is no key set yet")
	errNotBound    = errors.New("the token is not bound to a certificate")
	errOtherBinder = errors.New("the token is bound to another certificate")
)

// keySet is a parsed JWK Set. Immutable.
type keySet struct {
	byID map[string]*rsa.PublicKey
	// all is for tokens without a kid, which ArtStore's Python module makes.
	all []*rsa.PublicKey
}

// parseKeySet takes the RSA signing keys of a JWK Set and ignores others (RFC 7517 §5). A set
// without any is an error: it must not replace a set that works.
func parseKeySet(data []byte) (*keySet, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("parsing the key set: %w", err)
	}
	ks := &keySet{byID: map[string]*rsa.PublicKey{}}
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(raw) != nil || (k.Use != "" && k.Use != "sig") {
			continue
		}
		pub, ok := k.Key.(*rsa.PublicKey)
		if !ok || pub.N.BitLen() < minRSABits {
			continue
		}
		ks.all = append(ks.all, pub)
		if k.KeyID != "" {
			ks.byID[k.KeyID] = pub
		}
	}
	if len(ks.all) == 0 {
		return nil, errors.New("parsing the key set: no RSA signing key in it")
	}
	return ks, nil
}

// tokenInfo is what a valid token says. Immutable.
type tokenInfo struct {
	subject string
	scopes  []string
	// thumbprint is "" if the token is not bound.
	thumbprint string
	expires    time.Time
}

// bound compares the thumbprint in the token with that of the peer's certificate, in constant
// time (RFC 8705 §3). Where no certificate was verified, a bound token is refused.
func (v *tokenInfo) bound(r *http.Request, required bool) error {
	if v.thumbprint == "" {
		if required {
			return errNotBound
		}
		return nil
	}
	peer, ok := peerThumbprint(r)
	if !ok || subtle.ConstantTimeCompare([]byte(peer), []byte(v.thumbprint)) != 1 {
		return errOtherBinder
	}
	return nil
}

// verify verifies signature, times and type of a token. Only RS256 is accepted: an attacker
// chooses the header, and must not choose the algorithm (RFC 8725 §3.1).
func (ks *keySet) verify(raw string, now time.Time) (*tokenInfo, error) {
	token, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil || len(token.Headers) != 1 {
		return nil, errBadToken
	}
	candidates := ks.all
	if kid := token.Headers[0].KeyID; kid != "" {
		key, known := ks.byID[kid]
		if !known {
			return nil, errUnknownKey
		}
		candidates = []*rsa.PublicKey{key}
	}
	for _, key := range candidates {
		var c claims
		if token.Claims(key, &c) == nil {
			return c.info(now)
		}
	}
	return nil, errBadToken
}

// info checks the claims. A token without an end is refused, and so is a refresh token, which
// the same key may have signed.
func (c *claims) info(now time.Time) (*tokenInfo, error) {
	switch {
	case c.Expiry == nil, now.After(c.Expiry.Time().Add(tokenLeeway)):
		return nil, errBadToken
	case c.NotBefore != nil && now.Add(tokenLeeway).Before(c.NotBefore.Time()):
		return nil, errBadToken
	case c.Type == "refresh":
		return nil, errBadToken
	}
	v := &tokenInfo{subject: c.Subject, scopes: append(strings.Fields(c.Scope), c.Scopes...), expires: c.Expiry.Time().Add(tokenLeeway)}
	if c.Confirm != nil {
		// An empty thumbprint is a binding that nothing can meet, not the absence of one.
		if v.thumbprint = c.Confirm.Thumbprint; v.thumbprint == "" {
			return nil, errBadToken
		}
	}
	return v, nil
}

// may reports whether the token permits the scope.
func (v *tokenInfo) may(scope string) bool { return slices.Contains(v.scopes, scope) }

// verifier verifies tokens with the keys that the Admin Module publishes.
type verifier struct {
	url string
	rt  http.RoundTripper
	// ahead is how far the clock of this service is wrong.
	ahead   time.Duration
	metrics *storageMetrics
	fetches atomic.Int64
	hits    atomic.Int64
	misses  atomic.Int64

	keys atomic.Pointer[keySet]

	// mu guards the fields below. It is never held during a fetch.
	mu       sync.Mutex
	inflight chan struct{}
	// last is the end of the last fetch, successful or not.
	last  time.Time
	cache map[[sha256.Size]byte]*tokenInfo
}

// newVerifier returns a verifier without keys: refresh fetches them from url over rt.
func newVerifier(url string, rt http.RoundTripper, ahead time.Duration, m *storageMetrics) *verifier {
	return &verifier{url: url, rt: rt, ahead: ahead, metrics: m, cache: map[[sha256.Size]byte]*tokenInfo{}}
}

// now is the time by which tokens are verified.
func (v *verifier) now() time.Time { return time.Now().Add(v.ahead) }

// verify returns what the token of a request says, or why it is refused. Signature and times
// may come from the cache. The binding is compared on each request, because the same token
// may come over another connection.
func (v *verifier) verify(r *http.Request, requireBound bool) (*tokenInfo, error) {
	start := time.Now()
	raw, err := bearerToken(r)
	if err != nil {
		v.metrics.validated("none", "refused", start)
		return nil, err
	}
	hash := sha256.Sum256([]byte(raw))
	cache := "hit"
	found := v.cached(hash, v.now())
	if found == nil {
		cache = "miss"
		v.misses.Add(1)
		if found, err = v.lookUp(r.Context(), raw); err == nil {
			v.remember(hash, found, v.now())
		}
	} else {
		v.hits.Add(1)
	}
	if err == nil {
		err = found.bound(r, requireBound)
	}
	if err != nil {
		v.metrics.validated(cache, "refused", start)
		return nil, err
	}
	v.metrics.validated(cache, "valid", start)
	return found, nil
}

// lookUp verifies a token that is not in the cache. For an unknown kid it fetches the key set
// once more, because the Admin Module may have rotated its key.
func (v *verifier) lookUp(ctx context.Context, raw string) (*tokenInfo, error) {
	keys := v.keys.Load()
	if keys != nil {
		found, err := keys.verify(raw, v.now())
		if !errors.Is(err, errUnknownKey) {
			return found, err
		}
	}
	_ = v.refresh(ctx, minJWKSInterval) // its failure shows as unknown key or no keys
	if keys = v.keys.Load(); keys == nil {
		return nil, errNoKeys
	}
	return keys.verify(raw, v.now())
}

// cached returns what the token with this hash says, or nil if it is not in the cache or has
// expired at now.
func (v *verifier) cached(hash [sha256.Size]byte, now time.Time) *tokenInfo {
	v.mu.Lock()
	defer v.mu.Unlock()
	found := v.cache[hash]
	if found != nil && now.After(found.expires) {
		delete(v.cache, hash)
		return nil
	}
	return found
}

// remember caches what a valid token says, under the hash of the token, so that the cache
// holds no tokens. A full cache drops expired ones first.
func (v *verifier) remember(hash [sha256.Size]byte, found *tokenInfo, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.cache) >= maxCachedTokens {
		for h, old := range v.cache {
			if now.After(old.expires) {
				delete(v.cache, h)
			}
		}
	}
	for h := range v.cache { // still full of valid tokens: any one of them pays a signature check again
		if len(v.cache) < maxCachedTokens {
			break
		}
		delete(v.cache, h)
	}
	v.cache[hash] = found
}

// refresh fetches the key set, or waits for the fetch in progress. It does nothing if the last
// fetch ended less than atLeast ago. On failure the old key set stays in use.
func (v *verifier) refresh(ctx context.Context, atLeast time.Duration) error {
	v.mu.Lock()
	if running := v.inflight; running != nil {
		v.mu.Unlock()
		select {
		case <-running:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if !v.last.IsZero() && time.Since(v.last) < atLeast {
		v.mu.Unlock()
		return nil
	}
	done := make(chan struct{})
	v.inflight = done
	v.mu.Unlock()

	// Others wait for this fetch: it must not end because this caller left.
	keys, err := v.fetch(context.WithoutCancel(ctx))
	if err == nil {
		v.keys.Store(keys)
	}
	v.mu.Lock()
	v.inflight, v.last = nil, time.Now()
	v.mu.Unlock()
	close(done)
	return err
}

// fetch gets the key set. It reads maxJWKS bytes at most, so that a larger set does not parse.
func (v *verifier) fetch(ctx context.Context) (*keySet, error) {
	v.fetches.Add(1)
	ctx, cancel := context.WithTimeout(ctx, jwksTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.url, nil)
	if err != nil {
		return nil, fmt.Errorf("fetching the key set: %w", err)
	}
	resp, err := v.rt.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("fetching the key set: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	if resp.StatusCode != http.StatusOK {    // a redirect is no key set either
		return nil, fmt.Errorf("fetching the key set: status %d", resp.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxJWKS))
	if err != nil {
		return nil, fmt.Errorf("fetching the key set: %w", err)
	}
	return parseKeySet(data)
}

// bearerToken reads the Authorization header (RFC 6750 §2.1). The case of the scheme does not
// matter (RFC 9110 §11.1). Two headers are an error: two servers could choose differently.
func bearerToken(r *http.Request) (string, error) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return "", errNoToken
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > maxTokenBytes {
		return "", errNoToken
	}
	return token, nil
}
