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
	// Count is how often it strikes. 0 means until it is replaced.
	Count int
}

// tokenDoor stands before the token endpoint.
type tokenDoor struct {
	next http.Handler

	mu       sync.Mutex
	fault    *TokenFault
	requests int
}

func (d *tokenDoor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		d.next.ServeHTTP(w, r)
		return
	}
	f := d.strike()
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
		d.next.ServeHTTP(w, r)
	}
}

func (d *tokenDoor) strike() TokenFault {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.requests++
	if d.fault == nil {
		return TokenFault{}
	}
	f := *d.fault
	if d.fault.Count > 0 {
		if d.fault.Count--; d.fault.Count == 0 {
			d.fault = nil
		}
	}
	return f
}

// SetTokenFault replaces what the token endpoint does wrong; the zero value ends it.
func (s *Stack) SetTokenFault(t testing.TB, f TokenFault) {
	t.Helper()
	s.door.mu.Lock()
	defer s.door.mu.Unlock()
	s.door.fault = &f
}

// TokenRequests is how often the token endpoint was asked.
func (s *Stack) TokenRequests() int {
	s.door.mu.Lock()
	defer s.door.mu.Unlock()
	return s.door.requests
}
