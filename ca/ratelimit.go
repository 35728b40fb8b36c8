package ca

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/artstore/artstore-pki/ca/internal/lru"
	"github.com/artstore/artstore-pki/ca/internal/problem"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/connlimit"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

const (
	limitAddress = "address"
	limitService = "service"
	limitTokens  = "enroller"

	// failuresPerBurst: so many bad credentials empty the bucket of an address.
	// Each is cheap to send and costs a signature to refuse; who sends good ones
	// does not notice.
	failuresPerBurst = 20

	// maxBuckets bounds the memory of one limit to some megabytes. Beyond it the
	// address that was quiet for longest is forgotten, and starts with a full
	// bucket: under an attack from that many addresses no address is limited wrongly.
	maxBuckets = 1 << 14
)

// limits are the buckets in use.
type limits struct {
	addresses buckets[netip.Prefix]
	services  buckets[string]
	tokens    buckets[string] // by enroller
}

func newLimits(l policy.Limits) *limits {
	return &limits{
		addresses: buckets[netip.Prefix]{rate: *l.PerAddress},
		services:  buckets[string]{rate: *l.PerService},
		tokens:    buckets[string]{rate: *l.PerEnroller},
	}
}

// sameRates reports whether the buckets can go on under another configuration.
func (l *limits) sameRates(to policy.Limits) bool {
	return l.addresses.rate == *to.PerAddress && l.services.rate == *to.PerService && l.tokens.rate == *to.PerEnroller
}

// wait returns how long the sender of a request must wait, and by which limit; 0 if not at all.
func (l *limits) wait(r *http.Request, now time.Time) (wait time.Duration, by string) {
	if wait = l.addresses.take(addressOf(r), now); wait > 0 {
		return wait, limitAddress
	}
	if service := serviceOf(r); service != "" {
		if wait = l.services.take(service, now); wait > 0 {
			return wait, limitService
		}
	}
	return 0, ""
}

// charge counts a request without a good credential, and makes its address wait.
func (a *Authority) charge(r *http.Request) {
	a.metrics.unauthenticated.Inc()
	a.state.Load().limits.addresses.charge(addressOf(r), time.Now())
}

// addressOf is the peer of the connection. Headers that proxies set are not
// believed: anybody can send them.
func addressOf(r *http.Request) netip.Prefix { return connlimit.AddressOf(r.RemoteAddr) }

// serviceOf is the service in a client certificate that the handshake verified,
// or one of its names: those of ACME may have no common name.
func serviceOf(r *http.Request) string {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.VerifiedChains[0]) == 0 {
		return ""
	}
	leaf := r.TLS.VerifiedChains[0][0]
	return cmp.Or(append([]string{leaf.Subject.CommonName}, certs.Names(leaf)...)...)
}

// buckets are token buckets by key, the least recently used of which are forgotten.
type buckets[K comparable] struct {
	rate policy.Rate

	mu       sync.Mutex
	limiters lru.Cache[K, *rate.Limiter]
}

// take takes one token, or returns when there will be one.
func (b *buckets[K]) take(key K, now time.Time) (wait time.Duration) {
	if b.rate.PerSecond == 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	limiter := b.limiter(key)
	r := limiter.ReserveN(now, 1)
	if wait = r.DelayFrom(now); wait > 0 {
		r.CancelAt(now) // a refused request does not put off the next one
	}
	return wait
}

// charge takes as many tokens as a failure costs, also those of the future, but no
// more than one burst of them: requests that were let in together and fail together
// must not lock their address out for longer than an empty bucket takes to fill.
func (b *buckets[K]) charge(key K, now time.Time) {
	if b.rate.PerSecond == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	limiter := b.limiter(key)
	left := int(limiter.TokensAt(now)) + b.rate.Burst
	limiter.ReserveN(now, min(max(1, b.rate.Burst/failuresPerBurst), max(0, left)))
}

func (b *buckets[K]) limiter(key K) *rate.Limiter {
	limiter, ok := b.limiters.Get(key)
	if !ok {
		limiter = rate.NewLimiter(rate.Limit(b.rate.PerSecond), b.rate.Burst)
		b.limiters.Add(key, limiter, maxBuckets)
	}
	return limiter
}

// rejectIfLimited answers a request that comes too soon, and reports whether it did. The
// body says the same as the header: people read the one, programs the other.
func (a *Authority) rejectIfLimited(w http.ResponseWriter, r *http.Request) bool {
	wait, by := a.state.Load().limits.wait(r, time.Now())
	return a.tooSoon(w, r, wait, by)
}

func (a *Authority) tooSoon(w http.ResponseWriter, r *http.Request, wait time.Duration, by string) bool {
	if wait == 0 {
		return false
	}
	a.metrics.limited.WithLabelValues(by).Inc()
	seconds := int(math.Ceil(wait.Seconds()))
	w.Header().Set("Retry-After", strconv.Itoa(seconds))
	text := fmt.Sprintf("too many requests of this %s: try again in %d s", by, seconds)
	if strings.HasPrefix(r.URL.Path, acmePrefix+"/") { // RFC 8555 §6.6
		problem.New(problem.RateLimited, "%s", text).Write(w)
		return true
	}
	writeJSON(w, http.StatusTooManyRequests, stepapi.Error{Status: http.StatusTooManyRequests, Message: text})
	return true
}
