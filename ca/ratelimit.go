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

// limits are the token buckets of a state. They outlive a reload that does not change
// their rates, so that a reload does not give every client a full bucket.
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

// sameRates reports whether the buckets have the rates of another configuration.
func (l *limits) sameRates(to policy.Limits) bool {
	return l.addresses.Rate() == *to.PerAddress && l.services.Rate() == *to.PerService && l.tokens.Rate() == *to.PerEnroller
}

// wait takes a token for the request, and returns 0 or how long its sender must wait and
// by which limit.
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

// charge counts a request without a valid credential, and takes a twentieth of the burst
// from the bucket of its address.
func (a *Authority) charge(r *http.Request) {
	a.metrics.unauthenticated.Inc()
	a.state.Load().limits.addresses.Charge(addressOf(r), time.Now())
}

// addressOf returns the address of the connection, IPv6 by /64. Headers that proxies set
// are not read, because every client can send them.
func addressOf(r *http.Request) netip.Prefix { return connlimit.AddressOf(r.RemoteAddr) }

// serviceOf returns the service in a client certificate that the handshake has verified.
// A certificate without a common name, as ACME issues them, counts by its first name.
// Without a certificate it is empty.
func serviceOf(r *http.Request) string {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.VerifiedChains[0]) == 0 {
		return ""
	}
	leaf := r.TLS.VerifiedChains[0][0]
	return cmp.Or(append([]string{leaf.Subject.CommonName}, certs.Names(leaf)...)...)
}

// rejectIfLimited answers 429 to a request that comes too soon, and reports whether it has
// answered. The wait in seconds is in the header for programs and in the text for people.
func (a *Authority) rejectIfLimited(w http.ResponseWriter, r *http.Request) bool {
	wait, by := a.state.Load().limits.wait(r, time.Now())
	return a.tooSoon(w, r, wait, by)
}

// tooSoon is rejectIfLimited for a wait that is known. ACME clients get a problem document.
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
