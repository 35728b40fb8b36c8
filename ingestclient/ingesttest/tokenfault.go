package ingesttest

import (
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"
)

// TokenFault is one way for the token endpoint to misbehave. The zero value only counts.
type TokenFault struct {
	// Delay before the answer.
	Delay time.Duration
	// Status is answered instead of a token, with an empty body; 0 goes on to the
	// real endpoint. -1 drops the connection.
	Status int
	// RetryAfter goes with Status, in whole seconds.
	RetryAfter time.Duration
	// Count is how many requests it applies to. 0 means until it is replaced.
	Count int
}

// tokenProxy is before the token endpoint, and answers in its place while there is a fault.
type tokenProxy struct {
	next http.Handler

	mu       sync.Mutex
	fault    *TokenFault
	requests int
}

func (p *tokenProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		p.next.ServeHTTP(w, r)
		return
	}
	f := p.activeFault()
	timer := time.NewTimer(f.Delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
		return
	}
	switch {
	case f.Status < 0:
		panic(http.ErrAbortHandler)
	case f.Status > 0:
		if f.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(f.RetryAfter.Seconds())))
		}
		w.WriteHeader(f.Status)
	default:
		p.next.ServeHTTP(w, r)
	}
}

func (p *tokenProxy) activeFault() TokenFault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests++
	if p.fault == nil {
		return TokenFault{}
	}
	f := *p.fault
	if p.fault.Count > 0 {
		if p.fault.Count--; p.fault.Count == 0 {
			p.fault = nil
		}
	}
	return f
}

// SetTokenFault replaces what the token endpoint does wrong; the zero value ends it.
func (s *Stack) SetTokenFault(t testing.TB, f TokenFault) {
	t.Helper()
	s.proxy.mu.Lock()
	defer s.proxy.mu.Unlock()
	s.proxy.fault = &f
}

// TokenRequests is how often the token endpoint was asked.
func (s *Stack) TokenRequests() int {
	s.proxy.mu.Lock()
	defer s.proxy.mu.Unlock()
	return s.proxy.requests
}
