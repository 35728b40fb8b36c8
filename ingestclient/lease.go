package ingestclient

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/ingestclient/internal/wire"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/rotation"
)

// expectWait is how long the storage transport waits for 100 Continue before it
// sends anyway: servers that do not know Expect must not cost more than this.
const expectWait = 3 * time.Second

const dialTimeout = 10 * time.Second

// identity is what the client needs of a rotating identity.
type identity struct {
	lease     func() *lease              // pins the current generation
	subscribe func(func()) (stop func()) // calls back after a change
	close     func()                     // closes the connections of all generations
}

// dialer dials for uploads, with fewer system calls: bench/ingest shows what they
// save.
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

// rotating adapts id. Tokens and uploads have a transport of their own, so that a
// full upload pool cannot keep a token request waiting. Tokens go over HTTP/1.1:
// HTTP/2 has nothing to offer for one request an hour, and net/http loses the alert
// of a server that refuses our certificate where it arrives before the request.
func rotating(id *rotation.Identity, s *settings) (identity, error) {
	storage, errStorage := id.Transport(rotation.TransportOptions{
		HTTP1Only: !s.HTTP2, MaxConnsPerHost: s.PoolSize, ExpectContinueTimeout: expectWait, DialContext: dialer(),
		MinVersion: s.MinVersion, CipherSuites: s.CipherSuites, Trust: s.StorageTrust, Proxy: s.StorageProxy,
	})
	tokens, errTokens := id.Transport(rotation.TransportOptions{
		HTTP1Only: true, MaxConnsPerHost: 2, MinVersion: s.MinVersion, CipherSuites: s.CipherSuites, Trust: s.TokenTrust, Proxy: s.TokenProxy,
	})
	if err := errors.Join(errStorage, errTokens); err != nil {
		return identity{}, err
	}
	plain := cleartextTransport(s)
	return identity{
		lease: func() *lease {
			l := id.Lease()
			gen := l.Generation()
			return newLease(lease{
				number: gen.Number(), thumb: l.Thumbprint(), serial: pemfile.Serial(gen.Leaf()), notAfter: gen.Leaf().NotAfter,
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

// byScheme sends http requests, which are permitted by name only, past the
// identity: that one speaks https and nothing else.
type byScheme struct{ secure, plain http.RoundTripper }

func (b byScheme) RoundTrip(r *http.Request) (*http.Response, error) {
	if secure(r.URL) {
		return b.secure.RoundTrip(r)
	}
	return b.plain.RoundTrip(r)
}

// cleartext is the identity of a client that has none.
func cleartext(s *settings) identity {
	t := cleartextTransport(s)
	return identity{
		lease:     func() *lease { return newLease(lease{storage: s.Wrap(t), token: s.Wrap(t), release: func() {}}) },
		subscribe: func(func()) func() { return func() {} },
		close:     t.CloseIdleConnections,
	}
}

// cleartextTransport has the limits of the others, and no proxy: the environment
// must not decide where files go.
func cleartextTransport(s *settings) *http.Transport {
	return &http.Transport{
		MaxConnsPerHost: s.PoolSize, MaxIdleConnsPerHost: s.PoolSize, IdleConnTimeout: 90 * time.Second, ExpectContinueTimeout: expectWait,
	}
}

// lease is one pinned generation. It is released when the client has moved on
// and the last request that uses it is over, so a request started with the old
// certificate and its token ends with them.
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

// newLease starts with one reference, the client's own.
func newLease(l lease) *lease {
	l.refs = new(atomic.Int64)
	l.refs.Store(1)
	l.gone = new(atomic.Bool)
	return &l
}

// describe is what logs say of the certificate, with the lowest protocol that is spoken and the suites that were chosen for it.
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

// acquire adds a reference unless the lease is already on its way out.
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

// done gives one reference back; the last one returns the generation to the
// identity, which then closes what no other holder needs.
func (l *lease) done() {
	if l.refs.Add(-1) == 0 {
		l.release()
	}
}

// expired reports whether requests over l can still work.
func (l *lease) expired(now time.Time) bool {
	return l.gone.Load() || !l.notAfter.IsZero() && !now.Before(l.notAfter)
}

// credential is what a request is made with. It is published as one value: no
// request ever pairs the token of one certificate with the connections of another.
type credential struct {
	lease *lease
	token *token // nil: none yet, or rejected
}

// life is the context of everything that outlives a caller; it ends with Close.
// It has no parent, because New takes no context: a client outlives the call that makes it.
type life struct {
	over chan struct{}
	once sync.Once
}

func newLife() *life { return &life{over: make(chan struct{})} }

func (l *life) end()                        { l.once.Do(func() { close(l.over) }) }
func (l *life) Done() <-chan struct{}       { return l.over }
func (l *life) Deadline() (time.Time, bool) { return time.Time{}, false }
func (l *life) Value(any) any               { return nil }

func (l *life) Err() error {
	select {
	case <-l.over:
		return context.Canceled
	default:
		return nil
	}
}
