package ingestclient_test

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/rotation"
)

// pushed is a source of identities that the test hands it.
type pushed struct{ next chan rotation.Material }

func (p pushed) Watch(ctx context.Context, yield func(rotation.Material) error) error {
	for {
		select {
		case m := <-p.next:
			if err := yield(m); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// identity opens a real rotating identity; the returned function rotates it.
func (a *authority) identity(drain time.Duration) (*rotation.Identity, func()) {
	a.t.Helper()
	src := pushed{make(chan rotation.Material, 1)}
	rotate := func() {
		src.next <- rotation.Material{Certificate: a.issue("ingester"), Roots: []*x509.Certificate{a.root.Cert}}
	}
	rotate()
	id, err := rotation.Open(a.t.Context(), rotation.Config{Source: src, DrainTimeout: drain, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = id.Close() })
	return id, rotate
}

// TestRotatingIdentityUnderLoad uses connections of package rotation, tokens bound to
// each certificate, and uploads all the time, over HTTP/2 too.
func TestRotatingIdentityUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	for name, http2 := range map[string]bool{"http/1.1": false, "http/2": true} {
		t.Run(name, func(t *testing.T) {
			w := newServers(t, func(c *ingestclient.Config) { c.MaxAttempts, c.HTTP2 = 1, http2 })
			id, rotate := w.identity(time.Minute)
			c, err := ingestclient.New(w.cfg, id)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			b := content(100_000)
			for range 4 {
				wg.Go(func() {
					for ctx.Err() == nil && !t.Failed() {
						if _, err := c.Upload(t.Context(), ingestclient.BytesContent("a", b), ingestclient.Meta{}); err != nil {
							t.Error(err)
						}
					}
				})
			}
			const rotations = 6
			for n := int64(1); n <= rotations; n++ {
				rotate()
				until := c.Stats().Uploads + 5
				for (c.Stats().Swaps < n || c.Stats().Uploads < until) && !t.Failed() {
					if _, err := c.Upload(t.Context(), ingestclient.BytesContent("b", nil), ingestclient.Meta{}); err != nil {
						t.Error(err)
					}
				}
			}
			cancel()
			wg.Wait()
			st := c.Stats()
			if w.storage.stale != 0 || st.Rejected != 0 || st.Retries != 0 || st.UploadErrors != 0 || st.TokenFetches > rotations+1 || st.Swaps != rotations {
				t.Errorf("%d stale tokens, %+v", w.storage.stale, st)
			}
			if err := errors.Join(c.Shutdown(t.Context()), c.Close(), c.Close()); err != nil {
				t.Error(err)
			}
			// Whoever minds an old generation sees its last holder go a moment later.
			for deadline := time.Now().Add(time.Minute); id.Status().Draining != 0; runtime.Gosched() {
				if time.Now().After(deadline) {
					t.Fatalf("%d old generations are still held", id.Status().Draining)
				}
			}
		})
	}
}

// TestRetiredGenerationIsLeft takes the endpoint away for longer than the identity keeps
// a superseded generation. Requests use the new one without a failure that counts as an
// attempt.
func TestRetiredGenerationIsLeft(t *testing.T) {
	w := newServers(t, nil)
	var down atomic.Bool
	w.cfg.TokenURL = w.serve(func(rw http.ResponseWriter, r *http.Request) {
		if down.Load() {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.admin.ServeHTTP(rw, r)
	}) + "/api/v1/auth/token"
	id, rotate := w.identity(time.Millisecond)
	superseded := make(chan struct{})
	c, err := ingestclient.New(w.cfg, id)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Upload(t.Context(), ingestclient.BytesContent("a", nil), ingestclient.Meta{}); err != nil {
		t.Fatal(err)
	}
	down.Store(true)
	defer id.Subscribe(func(rotation.Change) { close(superseded) })()
	rotate()
	<-superseded
	for err == nil { // ends when the old generation has been retired
		_, err = c.Metadata(t.Context(), "0000-1")
	}
	if !errors.Is(err, ingestclient.ErrTokenEndpoint) || errors.Is(err, rotation.ErrRetired) {
		t.Errorf("without a token for the new generation: %v", err)
	}
	down.Store(false)
	for {
		_, err = c.Upload(t.Context(), ingestclient.BytesContent("b", content(10)), ingestclient.Meta{})
		if !errors.Is(err, ingestclient.ErrTokenEndpoint) {
			break
		}
	}
	if err != nil || w.storage.stale != 0 || c.Stats().Rejected != 0 {
		t.Errorf("%v, %d stale tokens, %+v", err, w.storage.stale, c.Stats())
	}
}

// A token endpoint still without TLS, permitted by name, next to a Storage Element with it.
func TestCleartextHalfBesideAnIdentity(t *testing.T) {
	w := newServers(t, nil)
	id, _ := w.identity(0)
	cfg := w.cfg
	plain := plainServer(t, func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, `{"access_token":"tok","expires_in":60}`)
	})
	cfg.TokenURL, cfg.AllowCleartext = plain, true
	c, err := ingestclient.New(cfg, id)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Upload(t.Context(), ingestclient.BytesContent("a", content(10)), ingestclient.Meta{}); err != nil {
		t.Error(err)
	}
}
