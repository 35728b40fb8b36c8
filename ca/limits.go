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

	"github.com/artstore/artstore-pki/ca/internal/problem"
	"github.com/artstore/artstore-pki/internal/connlimit"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// Limits say how often one address, and one service by its client certificate,
// may ask. They are looked at before anything of a request is parsed.
type Limits struct {
	PerAddress *Rate `yaml:"per_address,omitempty"` // absent: 1000 a second, 2000 at once; IPv6 by /64
	PerService *Rate `yaml:"per_service,omitempty"` // absent: 200 a second, 1000 at once
	// PerEnroller is how often one service may ask for enrolment tokens; absent: 5 a
	// second, 100 at once. Each is an event of the record.
	PerEnroller *Rate `yaml:"per_enroller,omitempty"`
	// Connections that may be open at once, and how many of them one address may
	// have: see connlimit.Caps, which has the defaults for 0. The listener's owner enforces them.
	Connections           int `yaml:"connections,omitempty"`
	ConnectionsPerAddress int `yaml:"connections_per_address,omitempty"`
}

// Rate is a token bucket.
type Rate struct {
	PerSecond float64 `yaml:"per_second"` // 0 means no limit
	Burst     int     `yaml:"burst"`      // requests at once; 0 means twice PerSecond
}

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
	// bucket: under an attack from that many addresses nobody is punished wrongly.
	maxBuckets = 1 << 14
)

func (l Limits) parse(bad *problems) Limits {
	one := func(key string, r *Rate, def Rate) *Rate {
		if r == nil {
			return &def
		}
		out := *r
		if out.PerSecond < 0 || out.PerSecond > 1e6 || math.IsNaN(out.PerSecond) || out.Burst < 0 || out.Burst > 1e6 {
			bad.add("limits.%s: want numbers from 0 to 1000000", key)
		}
		if out.Burst == 0 {
			out.Burst = max(1, int(2*out.PerSecond))
		}
		return &out
	}
	for key, n := range map[string]int{"connections": l.Connections, "connections_per_address": l.ConnectionsPerAddress} {
		if n < 0 || n > 1e6 {
			bad.add("limits.%s: want a number from 0 to 1000000", key)
		}
	}
	return Limits{
		PerAddress: one("per_address", l.PerAddress, Rate{1000, 2000}),
		PerService: one("per_service", l.PerService, Rate{200, 1000}),

		PerEnroller: one("per_enroller", l.PerEnroller, Rate{5, 100}),
	}
}

// limits are the buckets in use.
type limits struct {
	addresses buckets[netip.Prefix]
	services  buckets[string]
	tokens    buckets[string] // by enroller
}

func newLimits(l Limits) *limits {
	return &limits{
		addresses: buckets[netip.Prefix]{rate: *l.PerAddress},
		services:  buckets[string]{rate: *l.PerService},
		tokens:    buckets[string]{rate: *l.PerEnroller},
	}
}

// follows reports whether the buckets can go on under another configuration.
func (l *limits) follows(to Limits) bool {
	return l.addresses.rate == *to.PerAddress && l.services.rate == *to.PerService && l.tokens.rate == *to.PerEnroller
}

// take returns how long the sender of a request must wait, and by which limit; 0 if not at all.
func (l *limits) take(r *http.Request, now time.Time) (wait time.Duration, by string) {
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

// charge counts a request that was refused to a stranger, and makes its address wait.
func (a *Authority) charge(r *http.Request) {
	a.metrics.strangers.Inc()
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
	return cmp.Or(append([]string{leaf.Subject.CommonName}, pemfile.Names(leaf)...)...)
}

// buckets are token buckets by key, the least recently used of which are forgotten.
type buckets[K comparable] struct {
	rate Rate

	mu       sync.Mutex
	limiters recent[K, *rate.Limiter]
}

// take takes one token, or returns when there will be one.
func (b *buckets[K]) take(key K, now time.Time) (wait time.Duration) {
	if b.rate.PerSecond == 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	limiter := b.get(key)
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
	limiter := b.get(key)
	left := int(limiter.TokensAt(now)) + b.rate.Burst
	limiter.ReserveN(now, min(max(1, b.rate.Burst/failuresPerBurst), max(0, left)))
}

func (b *buckets[K]) get(key K) *rate.Limiter {
	limiter, ok := b.limiters.get(key)
	if !ok {
		limiter = rate.NewLimiter(rate.Limit(b.rate.PerSecond), b.rate.Burst)
		b.limiters.add(key, limiter, maxBuckets)
	}
	return limiter
}

// limited answers a request that comes too soon, and reports whether it did. The
// body says the same as the header: people read the one, programs the other.
func (a *Authority) limited(w http.ResponseWriter, r *http.Request) bool {
	wait, by := a.state.Load().limits.take(r, time.Now())
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
	answer(w, http.StatusTooManyRequests, stepapi.Error{Status: http.StatusTooManyRequests, Message: text})
	return true
}
