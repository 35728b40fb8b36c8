package ingestclient

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/ingestclient/internal/wire"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/rotation"
)

// expectWait is how long the storage transport waits for 100 Continue before it sends the
// body without it: some servers do not support Expect (RFC 9110 §10.1.1).
const expectWait = 3 * time.Second

const dialTimeout = 10 * time.Second

// leaseSource is what the client needs of a rotating identity.
type leaseSource struct {
	lease     func() *lease              // pins the current generation
	subscribe func(func()) (stop func()) // calls back after a change
	close     func()                     // closes the connections of all generations
}

// dialer dials for uploads. Its connections need fewer system calls; bench/ingest
// measures how much that saves.
func dialer() func(ctx context.Context, network, addr string) (net.Conn, error) {
	d := &net.Dialer{Timeout: dialTimeout}
	var records wire.Coalescer
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return records.Wrap(conn), nil
	}
}

// rotatingSource adapts id. Tokens and uploads have a transport of their own, so that a
// full upload pool cannot keep a token request waiting. Tokens go over HTTP/1.1:
// HTTP/2 has nothing to offer for one request an hour, and net/http loses the alert
// of a server that refuses our certificate where it arrives before the request.
func rotatingSource(id *rotation.Identity, s *settings) (leaseSource, error) {
	storage, errStorage := id.Transport(rotation.TransportOptions{
		HTTP1Only: !s.HTTP2, MaxConnsPerHost: s.PoolSize, ExpectContinueTimeout: expectWait, DialContext: dialer(),
		MinVersion: s.MinVersion, CipherSuites: s.CipherSuites, Trust: s.StorageTrust, Proxy: s.StorageProxy,
	})
	tokens, errTokens := id.Transport(rotation.TransportOptions{
		HTTP1Only: true, MaxConnsPerHost: 2, MinVersion: s.MinVersion, CipherSuites: s.CipherSuites, Trust: s.TokenTrust, Proxy: s.TokenProxy,
	})
	if err := errors.Join(errStorage, errTokens); err != nil {
		return leaseSource{}, err
	}
	plain := cleartextTransport(s)
	return leaseSource{
		lease: func() *lease {
			l := id.Lease()
			gen := l.Generation()
			return newLease(lease{
				number: gen.Number(), thumb: l.Thumbprint(), serial: certs.Serial(gen.Leaf()), notAfter: gen.Leaf().NotAfter,
				storage: s.Wrap(byScheme{l.RoundTripper(storage), plain}), token: s.Wrap(byScheme{l.RoundTripper(tokens), plain}), release: l.Release,
			})
		},
		subscribe: func(fn func()) func() {
			return id.Subscribe(func(c rotation.Change) {
				if c.Err == nil {
					fn()
				}
			})
		},
		close: func() {
			_ = storage.Close() // nothing in flight any more, and nothing to do about a failure
			_ = tokens.Close()
			plain.CloseIdleConnections()
		},
	}, nil
}

// byScheme sends requests to http:// URLs, which Config.AllowCleartext permits, without the
// identity, whose transport speaks https only.
type byScheme struct{ secure, plain http.RoundTripper }

func (b byScheme) RoundTrip(r *http.Request) (*http.Response, error) {
	if secure(r.URL) {
		return b.secure.RoundTrip(r)
	}
	return b.plain.RoundTrip(r)
}

// cleartextSource is the identity of a client that has none.
func cleartextSource(s *settings) leaseSource {
	t := cleartextTransport(s)
	return leaseSource{
		lease:     func() *lease { return newLease(lease{storage: s.Wrap(t), token: s.Wrap(t), release: func() {}}) },
		subscribe: func(func()) func() { return func() {} },
		close:     t.CloseIdleConnections,
	}
}

// cleartextTransport has the limits of the other transports, and no proxy: the environment
// must not decide where files go.
func cleartextTransport(s *settings) *http.Transport {
	return &http.Transport{
		MaxConnsPerHost: s.PoolSize, MaxIdleConnsPerHost: s.PoolSize, IdleConnTimeout: 90 * time.Second, ExpectContinueTimeout: expectWait,
	}
}

// lease is one leased generation of the identity. It is returned when the client has
// moved to another one and the last request over it has ended. So a request that
// began with a certificate and its token ends with them.
type lease struct {
	number   uint64
	thumb    string    // RFC 8705 x5t#S256, "" without a certificate
	serial   string    // hex, for logs
	notAfter time.Time // zero without a certificate
	storage  http.RoundTripper
	token    http.RoundTripper
	release  func()
	refs     *atomic.Int64
	gone     *atomic.Bool // the identity has retired it
}

// newLease returns l with one reference, the client's own.
func newLease(l lease) *lease {
	l.refs = new(atomic.Int64)
	l.refs.Store(1)
	l.gone = new(atomic.Bool)
	return &l
}

// describe returns log attributes: the certificate, the lowest TLS version that is
// spoken, and the cipher suites if they were configured.
func (l *lease) describe(s *settings) []any {
	attrs := []any{"protocol", strings.ReplaceAll(tls.VersionName(s.MinVersion), " ", "v"), "serial", l.serial, "fingerprint", l.thumb, "not_after", l.notAfter}
	if len(s.CipherSuites) == 0 {
		return attrs
	}
	names := make([]string, len(s.CipherSuites))
	for i, id := range s.CipherSuites {
		names[i] = tls.CipherSuiteName(id)
	}
	return append(attrs, "cipher_suites", strings.Join(names, ":"))
}

// acquire adds a reference. False means that there was none left: the generation was
// returned.
func (l *lease) acquire() bool {
	for {
		n := l.refs.Load()
		if n == 0 {
			return false
		}
		if l.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// unref ends one reference; the last one returns the generation to the identity,
// which closes the connections that no other holder needs.
func (l *lease) unref() {
	if l.refs.Add(-1) == 0 {
		l.release()
	}
}

// expired reports whether requests over l fail: its certificate has expired, or its
// generation was retired.
func (l *lease) expired(now time.Time) bool {
	return l.gone.Load() || !l.notAfter.IsZero() && !now.Before(l.notAfter)
}

// credential is the lease and the token of a request. It is published as one value,
// so that no request has the token of one certificate and the connections of another.
type credential struct {
	lease *lease
	token *token // nil: none yet, or rejected
}
