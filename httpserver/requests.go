package httpserver

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"sync"

	"github.com/artstore/artstore-pki/internal/connlimit"
)

// requestsPerConn is how many open requests an address may have for each connection that
// it may have. Clients of HTTP/2 have a few at a time, and those behind one address do not
// all ask at once.
const requestsPerConn = 2

// counter counts by address.
type counter struct {
	mu sync.Mutex
	by map[netip.Prefix]int
}

func newCounter() *counter { return &counter{by: make(map[netip.Prefix]int)} }

func (c *counter) acquire(from netip.Prefix, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[from] >= most {
		return false
	}
	c.by[from]++
	return true
}

func (c *counter) release(from netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[from]--; c.by[from] == 0 {
		delete(c.by, from)
	}
}

// limitRequests ends a request without an answer if its address has too many open: an
// answer that the peer does not take would keep the stream open too. In HTTP/2 a handler
// can return while its answer still waits for the peer. So the answer is flushed here, and
// the request counts until it is sent, or until it is held.
func limitRequests(next http.Handler, conns func() Conns, refusals *refusals) http.Handler {
	open := newCounter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from := connlimit.AddressOf(r.RemoteAddr)
		if !open.acquire(from, requestsPerConn*conns().perAddress()) {
			refusals.add(LimitRequests, from)
			panic(http.ErrAbortHandler) // resets the stream, or closes the connection of HTTP/1.1
		}
		release := sync.OnceFunc(func() { open.release(from) })
		defer release()
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), requestKey{}, release)))
		if r.ProtoMajor >= 2 {
			_ = http.NewResponseController(w).Flush() // no handler is left that an error could be told
		}
	})
}

// limitBodies answers 429 to a request with a body if its address has as many bodies that
// have not arrived as it may have connections. A body of an honest client arrives soon,
// because header and body are sent together. A body that is held back costs memory of the
// server: buffers, and the part that has arrived.
func limitBodies(next http.Handler, conns func() Conns, refusals *refusals) http.Handler {
	coming := newCounter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 { // not r.Body == nil: in HTTP/2 it never is; -1 is an unknown length
			next.ServeHTTP(w, r)
			return
		}
		from := connlimit.AddressOf(r.RemoteAddr)
		if !coming.acquire(from, conns().perAddress()) {
			refusals.add(LimitBodies, from)
			w.Header().Set("Retry-After", "1")
			if r.ProtoMajor == 1 {
				w.Header().Set("Connection", "close") // otherwise net/http would wait for the body
			}
			http.Error(w, "too many requests of this address whose bodies have not arrived: try again in 1 s", http.StatusTooManyRequests)
			return
		}
		body := &countedBody{ReadCloser: r.Body, release: sync.OnceFunc(func() { coming.release(from) })}
		defer body.release()
		r.Body = body
		next.ServeHTTP(w, r)
	})
}

// countedBody stops counting with its last byte: the time that the handler takes after
// that is no delay of the peer.
type countedBody struct {
	io.ReadCloser
	release func()
}

func (c *countedBody) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if err != nil {
		c.release()
	}
	return n, err
}
