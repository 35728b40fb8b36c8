// Package challenge checks whether a challenge of ACME was answered: http-01
// (RFC 8555 §8.3), dns-01 (RFC 8555 §8.4) and tls-alpn-01 (RFC 8737 §3). It knows no order,
// no account and no database.
//
//	v := challenge.New(challenge.Config{HTTPPort: "80", TLSPort: "443"})
//	err := v.Validate(ctx, challenge.Challenge{Kind: challenge.HTTP01, Name: "web.example", Token: token, KeyAuthorization: keyAuth})
//
// Invariants:
//   - It connects to no address of the authority's own machine or link, whatever a name
//     resolves to (TestForbiddenAddresses), unless the configuration names networks
//     (TestNetworks).
//   - It follows no redirect (TestNothingOfTheServer) and uses no proxy.
//   - The text of a problem is ours, with a status code and an address. It contains nothing
//     that a server sent (TestNothingOfTheServer).
//   - At most validationsAtOnce validations run at the same time (TestTurns), each for at
//     most validationTime.
package challenge

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/problem"
)

const (
	validationTime    = 10 * time.Second
	dialTime          = validationTime / 2
	waitTime          = validationTime // wait for a slot, while validationsAtOnce are running
	validationsAtOnce = 16             // each holds a request and a connection
)

// Kinds of challenges, as they are sent.
const (
	HTTP01    = "http-01"
	DNS01     = "dns-01"
	TLSALPN01 = "tls-alpn-01"
)

// Config says where answers are looked for.
type Config struct {
	// Resolver is the DNS server, host:port; empty means the system's.
	Resolver string
	// HTTPPort and TLSPort are where http-01 and tls-alpn-01 are answered.
	HTTPPort, TLSPort string
	// Networks are the only ones that are asked. Empty means all networks without
	// the loopback, link-local, unspecified and multicast addresses.
	Networks []netip.Prefix
}

// Challenge is what must have been answered.
type Challenge struct {
	Kind             string
	Name             string // DNS name without wildcard, or IP address
	Token            string
	KeyAuthorization string // RFC 8555 §8.1
}

// Validator validates challenges. It is safe for concurrent use.
type Validator struct {
	conf     Config
	guard    guard
	resolver *net.Resolver
	slots    chan struct{}
}

// New makes a validator.
func New(conf Config) *Validator {
	v := &Validator{conf: conf, guard: guard{conf.Networks}, resolver: new(net.Resolver), slots: make(chan struct{}, validationsAtOnce)}
	if conf.Resolver != "" {
		v.resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, conf.Resolver)
		}}
	}
	return v
}

// Validate checks once whether a challenge was answered. It returns nil, or a problem that
// becomes the error of the challenge. A problem of type rateLimited means that no slot was
// free within waitTime: no host was asked, and the client may try again.
func (v *Validator) Validate(ctx context.Context, ch Challenge) *problem.Document {
	wait, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	select {
	case v.slots <- struct{}{}:
		defer func() { <-v.slots }()
	case <-wait.Done():
		p := problem.New(problem.RateLimited, "too many validations are running: ask again in 5 s")
		p.RetryAfter = 5 * time.Second
		return p
	}
	ctx, stop := context.WithTimeout(ctx, validationTime)
	defer stop()
	t := &attempt{v: v}
	switch ch.Kind {
	case HTTP01:
		return t.http(ctx, ch)
	case DNS01:
		return t.dns(ctx, ch)
	case TLSALPN01:
		return t.tlsALPN(ctx, ch)
	}
	return problem.New(problem.Malformed, "no challenge of this kind is validated here")
}

// dns compares the TXT records (RFC 8555 §8.4).
func (t *attempt) dns(ctx context.Context, ch Challenge) *problem.Document {
	name := "_acme-challenge." + strings.TrimPrefix(ch.Name, "*.")
	records, err := t.v.resolver.LookupTXT(ctx, name+".")
	if err != nil {
		return t.refused("dns-01", name, "", err)
	}
	digest := sha256.Sum256([]byte(ch.KeyAuthorization))
	if want := base64.RawURLEncoding.EncodeToString(digest[:]); !slices.Contains(records, want) {
		return problem.New(problem.IncorrectResponse, "dns-01: none of the %d TXT records of %s is the digest of the key authorization", len(records), name)
	}
	return nil
}

// newClient returns a client for one request, without proxy, redirects and keep-alive.
func (t *attempt) newClient() *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: bodyLimit,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				host, _, err := net.SplitHostPort(addr)
				if err != nil {
					return nil, err
				}
				return t.dial(ctx, network, host, t.v.conf.HTTPPort)
			},
		},
	}
}
