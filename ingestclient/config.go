package ingestclient

import (
	"cmp"
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ingestclient/internal/pace"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/secret"
)

// Element is a Storage Element as the configuration names it.
type Element struct {
	URL      string // base URL, to which API paths are added
	Priority int    // the lowest goes first; several may have the same
}

// Off turns a limit of [Config] off, in the fields that say so.
const Off = -1

// Defaults returns the values that the fields of [Config] have if they are 0, for fields
// that are an amount.
func Defaults() Config {
	return Config{
		DefaultTokenLifetime: 300 * time.Second, // as ArtStore's realm of Keycloak issues them
		PoolSize:             100,
		TokenTimeout:         30 * time.Second,
		ResponseTimeout:      30 * time.Second,
		StallTimeout:         time.Minute,
		MinRate:              1 << 10,
		ExpectFrom:           1 << 20,
		MaxAttempts:          4,
		MaxRetryAfter:        30 * time.Second,
		TokenLag:             15 * time.Second,
		MinVersion:           tls.VersionTLS13,
	}
}

// Config says where to get tokens and where to upload. TokenURL, ClientID,
// ClientSecret (or another ClientAuth) and Elements (or RegistryURL) are required; the zero
// value of every other field works. In the fields that say so, [Off] or any negative value
// turns the limit off.
type Config struct {
	// TokenURL is the whole URL of the token endpoint; it need not live under the Admin Module's address.
	TokenURL string
	// ClientID names the service account.
	ClientID string
	// ClientAuth is the method by which the client authenticates, and decides the form
	// of token requests. Empty means AuthKeyJWT if ClientKey is set, else AuthJSON. A
	// ClientSecret or ClientKey that the method would ignore is an error.
	ClientAuth ClientAuth
	// ClientSecret is called for each token request, so that a replaced secret
	// is used at once; while the endpoint refuses the last one it is called up
	// to five times a second to notice a new one. Its error is reported by the
	// upload that needed the token.
	ClientSecret func(context.Context) (secret.String, error)
	// ClientKey is called like ClientSecret and returns the key that signs the
	// assertion (ECDSA P-256, RSA from 2048 bits or Ed25519) with its kid, which
	// may be empty. The key may live in hardware: only Public and Sign are used.
	ClientKey func(context.Context) (key crypto.Signer, kid string, err error)
	// Scope is sent with the request if it is not empty, except with AuthJSON, whose
	// endpoint reads none. ArtStore's realm of Keycloak needs none.
	Scope string
	// DefaultTokenLifetime counts for answers without expires_in. 0 means 300 s. If it is
	// too long, requests are answered 401 when the token has expired, and are repeated.
	DefaultTokenLifetime time.Duration

	// Elements are the Storage Elements that take the files. Uploads go to the
	// lowest priority, the one with most free space if there are several, and to
	// the next when that one is down, full or in a mode that takes nothing. Give
	// either Elements or RegistryURL.
	Elements []Element
	// RegistryURL is the whole URL at which the Admin Module lists its Storage
	// Elements: …/api/v1/storage-elements?status=online (Go) or
	// …/api/v1/internal/storage-elements/available (Python). The list is read
	// anew each minute; when that fails, the last one is used.
	RegistryURL string
	// PoolSize caps connections to each element, and with HTTP/1.1 uploads at a time; more
	// wait. 0 means 100.
	PoolSize int
	// HTTP2 lets uploads negotiate HTTP/2. It costs 1.4 to 1.9 times the CPU and
	// is limited by the server's flow-control window over the round-trip time.
	HTTP2 bool

	// TokenTimeout bounds one token request. 0 means 30 s.
	TokenTimeout time.Duration
	// ResponseTimeout bounds the wait for the answer after the last byte was
	// handed to the kernel; it is never a limit on the whole upload. 0 means 30 s.
	ResponseTimeout time.Duration
	// StallTimeout ends an upload or download that moves no byte for so long. 0 means 60 s,
	// Off is no limit.
	StallTimeout time.Duration
	// MinRate ends one that moves fewer bytes per second than this, averaged over a minute.
	// 0 means 1024, Off is no limit.
	MinRate int64
	// MaxRate limits all uploads together to so many bytes per second. Waiting for
	// it is neither a stall nor slowness. 0 is no limit.
	MaxRate int64
	// SkipChecksum leaves out the SHA-256 of what is sent, which is about half of
	// the CPU time of a large upload. Then the answer's size is all that is
	// compared, and a File has the checksum of the Storage Element's own account.
	SkipChecksum bool
	// ExpectFrom is the content size in bytes from which the client asks before
	// it sends the body (Expect: 100-continue). 0 means 1 MiB, Off is never. As
	// long as there is another element to ask, it asks for each file.
	ExpectFrom int64

	// MaxAttempts bounds how often one upload is sent; retries for a rejected token do not
	// count. 0 means 4.
	MaxAttempts int
	// MaxRetryAfter caps how long a Retry-After is obeyed. 0 means 30 s.
	MaxRetryAfter time.Duration
	// TokenLag is how long a Storage Element may refuse a fresh token because it
	// has not yet loaded the key that signed it. 0 means 15 s, Off is no time at all.
	TokenLag time.Duration

	// MinVersion is the lowest TLS version spoken. 0 means tls.VersionTLS13;
	// tls.VersionTLS12 can be chosen, with less every request fails.
	MinVersion uint16
	// CipherSuites are what is offered of TLS 1.2, if that is spoken; nil leaves
	// it to crypto/tls. Those of TLS 1.3 cannot be chosen.
	CipherSuites []uint16
	// TokenTrust and StorageTrust verify the servers of one side, in place of the
	// identity's bundle: the token endpoint and the registry, or the Storage
	// Elements. They must stay open until the client is closed. nil is the bundle
	// of the identity.
	TokenTrust, StorageTrust *rotation.Trust
	// TokenProxy and StorageProxy are asked for a tunnel to the servers of one
	// side, by CONNECT: http://host:port, with user and password before the host
	// if the proxy wants them. TLS is with the server, through the tunnel. nil is
	// none; the environment is not asked.
	TokenProxy, StorageProxy *url.URL
	// AllowCleartext permits http:// URLs, over which secret, tokens and files can be read by
	// others, and with them a nil identity.
	AllowCleartext bool
	// Wrap is put around the transports of both endpoints, for tracing; it is
	// called once per generation of the identity, for each. It sees tokens and
	// secrets in headers and bodies. nil means none.
	Wrap func(http.RoundTripper) http.RoundTripper
	// Logger gets state changes and failures that will be retried. nil means slog.Default.
	Logger *slog.Logger
	// Observer is told what happens, for metrics.
	Observer Observer
}

// settings is a Config that was found valid: defaults filled in, URLs parsed,
// "off" as the largest duration. Always held by pointer, so that printing a
// Client with %+v prints an address.
type settings struct {
	Config
	token   *url.URL
	storage []elementInfo
	// registry is nil when the elements are configured.
	registry   *url.URL
	pace       *pace.Bucket
	identified bool           // there is an identity
	jitter     func() float64 // uniform in [0, 1)
}

// parse checks c and reports everything that is wrong with it in one error.
func (c Config) parse(id *rotation.Identity) (*settings, error) {
	s := &settings{Config: c, jitter: rand.Float64, identified: id != nil}
	var errs []error
	s.token = c.checkURL("TokenURL", c.TokenURL, &errs)
	https := s.checkStorage(&errs) || secure(s.token)
	if id == nil && (!c.AllowCleartext || https) {
		errs = append(errs, errors.New("no identity: only cleartext URLs with AllowCleartext work without one"))
	}
	if c.ClientID == "" {
		errs = append(errs, errors.New("ClientID is empty"))
	}
	errs = append(errs, s.checkAuth()...)
	errs = append(errs, s.checkWays()...)
	// Where negative does not mean "off", it can only be a mistake.
	for name, v := range map[string]int64{
		"DefaultTokenLifetime": int64(c.DefaultTokenLifetime), "PoolSize": int64(c.PoolSize), "TokenTimeout": int64(c.TokenTimeout),
		"ResponseTimeout": int64(c.ResponseTimeout), "MaxAttempts": int64(c.MaxAttempts), "MaxRetryAfter": int64(c.MaxRetryAfter), "MaxRate": c.MaxRate,
	} {
		if v < 0 {
			errs = append(errs, fmt.Errorf("%s is negative", name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("checking the ingest configuration: %w", err)
	}
	s.fill()
	return s, nil
}

// checkStorage parses Elements or RegistryURL, of which one must be set, and reports
// whether one of the URLs is https.
func (s *settings) checkStorage(errs *[]error) (https bool) {
	switch {
	case s.RegistryURL != "" && len(s.Elements) > 0:
		*errs = append(*errs, errors.New("Elements and RegistryURL exclude each other"))
	case s.RegistryURL == "" && len(s.Elements) == 0:
		*errs = append(*errs, errors.New("Elements is empty, and there is no RegistryURL"))
	}
	if s.RegistryURL != "" {
		s.registry = s.checkURL("RegistryURL", s.RegistryURL, errs)
		https = secure(s.registry)
	}
	named := map[string]bool{}
	for i, e := range s.Elements {
		field := fmt.Sprintf("Elements[%d].URL", i)
		u := s.checkURL(field, e.URL, errs)
		switch {
		case u == nil:
		case named[base(u)]:
			*errs = append(*errs, fmt.Errorf("%s is named twice", field))
		default:
			named[base(u)] = true
			https = https || secure(u)
			s.storage = append(s.storage, elementInfo{base: base(u), priority: e.Priority, free: -1})
		}
	}
	return https
}

// checkWays reports trust and proxies that would not be used: http:// has no certificate to
// verify, and no tunnel is asked for.
func (s *settings) checkWays() (errs []error) {
	tokens := s.token == nil || secure(s.token)
	storage := !slices.ContainsFunc(s.storage, func(l elementInfo) bool { return strings.HasPrefix(l.base, "http:") })
	for _, f := range []struct {
		name       string
		set, https bool
	}{
		{"TokenTrust", s.TokenTrust != nil, tokens}, {"TokenProxy", s.TokenProxy != nil, tokens},
		{"StorageTrust", s.StorageTrust != nil, storage}, {"StorageProxy", s.StorageProxy != nil, storage},
	} {
		if f.set && (!f.https || !s.identified) {
			errs = append(errs, fmt.Errorf("%s goes with https:// only", f.name))
		}
	}
	for name, u := range map[string]*url.URL{"TokenProxy": s.TokenProxy, "StorageProxy": s.StorageProxy} {
		if u != nil && (u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "") {
			errs = append(errs, fmt.Errorf("%s is not http://host:port", name)) // never the URL itself: it may carry a password
		}
	}
	return errs
}

func secure(u *url.URL) bool { return u != nil && u.Scheme == "https" }

// checkURL parses the URL in a field, and adds an error to errs if it cannot be used.
func (c Config) checkURL(field, raw string, errs *[]error) *url.URL {
	fail := func(why string) *url.URL {
		*errs = append(*errs, fmt.Errorf("%s %s", field, why)) // never the URL itself: it may carry a password
		return nil
	}
	if raw == "" {
		return fail("is empty")
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return fail("is not a URL")
	case u.Scheme != "https" && u.Scheme != "http":
		return fail("must start with https://")
	case u.Hostname() == "":
		return fail("has no host")
	case u.User != nil:
		return fail("must not carry a user or password")
	case u.Fragment != "" || u.RawQuery != "" && field != "TokenURL" && field != "RegistryURL":
		return fail("must end with its path")
	case u.Scheme == "http" && !c.AllowCleartext:
		return fail("is http://: secret and tokens would travel readable; set AllowCleartext to permit it")
	}
	return u
}

// fill puts the defaults in the place of 0, and makes "off" a value that needs no special
// case.
func (s *settings) fill() {
	d := Defaults()
	s.DefaultTokenLifetime = cmp.Or(s.DefaultTokenLifetime, d.DefaultTokenLifetime)
	s.PoolSize = cmp.Or(s.PoolSize, d.PoolSize)
	s.TokenTimeout = cmp.Or(s.TokenTimeout, d.TokenTimeout)
	s.ResponseTimeout = cmp.Or(s.ResponseTimeout, d.ResponseTimeout)
	s.StallTimeout = cmp.Or(s.StallTimeout, d.StallTimeout)
	s.MinRate = cmp.Or(s.MinRate, d.MinRate)
	s.ExpectFrom = cmp.Or(s.ExpectFrom, d.ExpectFrom)
	s.MaxAttempts = cmp.Or(s.MaxAttempts, d.MaxAttempts)
	s.MaxRetryAfter = cmp.Or(s.MaxRetryAfter, d.MaxRetryAfter)
	s.TokenLag = max(0, cmp.Or(s.TokenLag, d.TokenLag))
	s.MinVersion = cmp.Or(s.MinVersion, d.MinVersion)
	if s.StallTimeout < 0 {
		s.StallTimeout = math.MaxInt64
	}
	if s.ExpectFrom < 0 {
		s.ExpectFrom = math.MaxInt64
	}
	s.MinRate = max(0, s.MinRate)
	s.pace = pace.New(s.MaxRate)
	if s.Wrap == nil {
		s.Wrap = func(rt http.RoundTripper) http.RoundTripper { return rt }
	}
	if s.Logger == nil {
		s.Logger = slog.Default()
	}
	s.Observer = s.Observer.complete()
}
