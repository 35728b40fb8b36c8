package ingestclient_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
)

// seen counts requests by path, around the client's own transports.
type seen struct {
	mu    sync.Mutex
	paths map[string]int
}

func (s *seen) wrap(rt http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		s.mu.Lock()
		s.paths[r.URL.Path]++
		s.mu.Unlock()
		return rt.RoundTrip(r)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestWrapSeesBothEndpoints expects that Config.Wrap is around every request to both
// endpoints, before and after a rotation.
func TestWrapSeesBothEndpoints(t *testing.T) {
	s := &seen{paths: map[string]int{}}
	w := newServers(t, nil)
	w.cfg.Wrap = s.wrap
	id, rotate := w.identity(time.Minute)
	c, err := ingestclient.New(w.cfg, id)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	upload := func() {
		if _, err := c.Upload(t.Context(), ingestclient.BytesContent("a", content(10)), ingestclient.Meta{}); err != nil {
			t.Fatal(err)
		}
	}
	upload()
	rotate()
	for c.Stats().Swaps == 0 {
		upload()
	}
	upload()
	st := c.Stats()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.paths["/api/v1/auth/token"] != int(st.TokenFetches) || s.paths["/api/v1/files/upload"] != int(st.Uploads) || st.TokenFetches != 2 {
		t.Errorf("%v, %+v", s.paths, st)
	}
}
