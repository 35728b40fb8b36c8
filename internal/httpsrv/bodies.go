package httpsrv

import (
	"io"
	"net/http"
	"net/netip"
	"sync"
)

// bodies counts the requests whose bodies have not arrived yet, by address.
// Honest ones are on this list for a moment, since header and body come
// together. A peer that holds bodies back pays for them with memory of ours:
// a handler, its buffers and the part of the body that came.
type bodies struct {
	mu sync.Mutex
	by map[netip.Prefix]int
}

// limitBodies answers 429 to a request with a body while its address has as many
// unfinished ones as it may have connections. HTTP/2 would allow that many times
// Streams.
func limitBodies(next http.Handler, conns func() Conns, refusals *refusals) http.Handler {
	b := &bodies{by: make(map[netip.Prefix]int)}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 { // HTTP/2 sets a Body then, too; -1 is a body of unknown length
			next.ServeHTTP(w, r)
			return
		}
		from := AddressOf(r.RemoteAddr)
		if !b.enter(from, conns().orDefault().PerAddress) {
			refusals.add(LimitBodies, from)
			w.Header().Set("Retry-After", "1")
			if r.ProtoMajor == 1 {
				w.Header().Set("Connection", "close") // else net/http would wait for the body
			}
			http.Error(w, "too many requests of this address whose bodies have not arrived: try again in 1 s", http.StatusTooManyRequests)
			return
		}
		body := &counted{ReadCloser: r.Body, leave: sync.OnceFunc(func() { b.leave(from) })}
		defer body.leave()
		r.Body = body
		next.ServeHTTP(w, r)
	})
}

func (b *bodies) enter(from netip.Prefix, most int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.by[from] >= most {
		return false
	}
	b.by[from]++
	return true
}

func (b *bodies) leave(from netip.Prefix) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.by[from]--; b.by[from] == 0 {
		delete(b.by, from)
	}
}

// counted leaves the list with its last byte: what the handler does after that
// is not the peer's delay.
type counted struct {
	io.ReadCloser
	leave func()
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if err != nil {
		c.leave()
	}
	return n, err
}
