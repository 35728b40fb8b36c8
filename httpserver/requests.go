package httpserver

import (
	"io"
	"net/http"
	"net/netip"
	"sync"

	"github.com/artstore/artstore-pki/internal/connlimit"
)

// requestsPerConn: an address may have so many requests open for each connection
// that it may have. Clients of HTTP/2 have a few at a time, and those behind one
// address do not all ask at once.
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

// limitRequests ends a request without an answer while its address has too many
// open: an answer that the peer does not take would keep the stream as well. A
// handler of HTTP/2 returns while its answer may still wait for the peer, so the
// answer is flushed here: what cannot be sent is an open request.
func limitRequests(next http.Handler, conns func() Conns, refusals *refusals) http.Handler {
	open := newCounter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from := connlimit.AddressOf(r.RemoteAddr)
		if !open.acquire(from, requestsPerConn*conns().perAddress()) {
			refusals.add(LimitRequests, from)
			panic(http.ErrAbortHandler) // resets the stream, or closes the connection of HTTP/1.1
		}
		defer open.release(from)
		next.ServeHTTP(w, r)
		if r.ProtoMajor >= 2 {
			_ = http.NewResponseController(w).Flush() // whether it was taken, the handler knows as little
		}
	})
}

// limitBodies answers 429 to a request with a body while its address has as many
// bodies on their way as it may have connections. Honest ones are on their way for
// a moment, since header and body come together. A peer that holds bodies back
// pays for them with memory of ours: buffers, and the part of the body that came.
func limitBodies(next http.Handler, conns func() Conns, refusals *refusals) http.Handler {
	coming := newCounter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 { // HTTP/2 sets a Body then, too; -1 is a body of unknown length
			next.ServeHTTP(w, r)
			return
		}
		from := connlimit.AddressOf(r.RemoteAddr)
		if !coming.acquire(from, conns().perAddress()) {
			refusals.add(LimitBodies, from)
			w.Header().Set("Retry-After", "1")
			if r.ProtoMajor == 1 {
				w.Header().Set("Connection", "close") // else net/http would wait for the body
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

// countedBody releases its place in the counter with its last byte: how long the handler
// takes after that is not the delay of the peer.
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
