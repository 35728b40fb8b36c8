// Package ratelimit has token buckets by key, such as an address or a service. A key that was
// not seen before has a full bucket.
//
// Invariants:
//   - A refused request takes nothing, so refusals do not add up (TestBuckets).
//   - What failures cost ends at one burst, however many fail at one moment
//     (TestBuckets).
//   - Memory is bounded, whatever keys come (TestBucketsAreBounded).
package ratelimit

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/artstore/artstore-pki/ca/internal/lru"
	"github.com/artstore/artstore-pki/ca/policy"
)

const (
	// failuresPerBurst is the number of bad credentials that empties the bucket of an
	// address. Each is cheap to send, and refusing it costs a signature check. Clients with
	// good credentials are not affected.
	failuresPerBurst = 20

	// maxBuckets bounds the memory of one limit to some megabytes. Beyond it the
	// key that was quiet for longest is forgotten, and starts with a full bucket:
	// under an attack from that many addresses no address is limited wrongly.
	maxBuckets = 1 << 14
)

// Buckets are the token buckets of one limit, safe for concurrent use.
type Buckets[K comparable] struct {
	rate policy.Rate

	mu       sync.Mutex
	limiters lru.Cache[K, *rate.Limiter]
}

// New makes the buckets of a limit. A rate of 0 per second limits nothing.
func New[K comparable](r policy.Rate) *Buckets[K] { return &Buckets[K]{rate: r} }

// Rate is the rate that the buckets were made with. Buckets can go on under another
// configuration that has the same one.
func (b *Buckets[K]) Rate() policy.Rate { return b.rate }

// Take takes one token and returns 0, or takes none and returns when there will be one.
func (b *Buckets[K]) Take(key K, now time.Time) (wait time.Duration) {
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

// Charge takes as many tokens as a failure costs, also those of the future, but no
// more than one burst of them: requests that were let in together and fail together
// must not lock their address out for longer than an empty bucket takes to fill.
func (b *Buckets[K]) Charge(key K, now time.Time) {
	if b.rate.PerSecond == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	limiter := b.limiter(key)
	left := int(limiter.TokensAt(now)) + b.rate.Burst
	limiter.ReserveN(now, min(max(1, b.rate.Burst/failuresPerBurst), max(0, left)))
}

// limiter returns the bucket of a key. The caller holds the lock.
func (b *Buckets[K]) limiter(key K) *rate.Limiter {
	limiter, ok := b.limiters.Get(key)
	if !ok {
		limiter = rate.NewLimiter(rate.Limit(b.rate.PerSecond), b.rate.Burst)
		b.limiters.Add(key, limiter, maxBuckets)
	}
	return limiter
}
