package rotation

import (
	"net/http"
	"sync"
)

// Lease pins one generation with its connections, so that a caller can do
// several things with one identity: fetch a token that is bound to the
// certificate, then use it. Superseded, a leased generation lives on until the
// lease is released, but not beyond Config.DrainTimeout or its leaf.
type Lease struct {
	tenure  *tenure
	release func()
}

// Lease pins the current generation. After [Identity.Close] the lease still
// names the last generation, and its requests fail.
func (id *Identity) Lease() *Lease {
	for {
		n := id.current.Load()
		if n.pin() {
			return &Lease{tenure: n, release: sync.OnceFunc(n.unpin)}
		}
		if id.current.Load() == n { // closed: there will be no successor
			return &Lease{tenure: n, release: func() {}}
		}
	}
}

// Generation is the pinned generation.
func (l *Lease) Generation() *Generation { return l.tenure.gen }

// Thumbprint is [Generation.Thumbprint] of the pinned generation.
func (l *Lease) Thumbprint() string { return l.tenure.gen.thumb }

// RoundTripper sends requests over the pinned generation, with the options and
// in the pool of t, which must be of the same Identity. Requests fail with [ErrRetired] once the generation is over.
func (l *Lease) RoundTripper(t *Transport) http.RoundTripper { return leased{l.tenure, t} }

// Release lets the generation go; it is idempotent. Requests that run hold it
// on their own.
func (l *Lease) Release() { l.release() }

type leased struct {
	tenure *tenure
	t      *Transport
}

func (s leased) RoundTrip(r *http.Request) (*http.Response, error) {
	p, err := s.tenure.enter(s.t, true)
	if err != nil {
		return nil, refuse(r, err)
	}
	return s.t.send(s.tenure, p, r)
}
