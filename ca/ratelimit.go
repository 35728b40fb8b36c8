package ca

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/acmesrv"
	"github.com/artstore/artstore-pki/ca/internal/problem"
	"github.com/artstore/artstore-pki/ca/internal/ratelimit"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/connlimit"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

const (
	limitAddress = "address"
	limitService = "service"
	limitTokens  = "enroller"
)

// limits are the buckets in use.
type limits struct {
	addresses *ratelimit.Buckets[netip.Prefix]
	services  *ratelimit.Buckets[string]
	tokens    *ratelimit.Buckets[string] // by enroller
}

func newLimits(l policy.Limits) *limits {
	return &limits{
		addresses: ratelimit.New[netip.Prefix](*l.PerAddress),
		services:  ratelimit.New[string](*l.PerService),
		tokens:    ratelimit.New[string](*l.PerEnroller),
	}
}

// sameRates reports whether the buckets can go on under another configuration.
func (l *limits) sameRates(to policy.Limits) bool {
	return l.addresses.Rate() == *to.PerAddress && l.services.Rate() == *to.PerService && l.tokens.Rate() == *to.PerEnroller
}

// wait returns how long the sender of a request must wait, and by which limit; 0 if not at all.
func (l *limits) wait(r *http.Request, now time.Time) (wait time.Duration, by string) {
	if wait = l.addresses.Take(addressOf(r), now); wait > 0 {
		return wait, limitAddress
	}
	if service := serviceOf(r); service != "" {
		if wait = l.services.Take(service, now); wait > 0 {
			return wait, limitService
		}
	}
	return 0, ""
}

// charge counts a request without a good credential, and makes its address wait.
func (a *Authority) charge(r *http.Request) {
	a.metrics.unauthenticated.Inc()
	a.state.Load().limits.addresses.Charge(addressOf(r), time.Now())
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
	if strings.HasPrefix(r.URL.Path, acmesrv.Prefix+"/") { // RFC 8555 §6.6
		problem.New(problem.RateLimited, "%s", text).Write(w)
		return true
	}
	writeJSON(w, http.StatusTooManyRequests, stepapi.Error{Status: http.StatusTooManyRequests, Message: text})
	return true
}
